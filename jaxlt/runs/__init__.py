"""The directory of a run: what writes it and what reads it."""
