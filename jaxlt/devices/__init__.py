"""Processes that train together, and where arrays lie on their devices."""
