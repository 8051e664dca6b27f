"""Loss of finished runs against the size of noise on their parameters."""
