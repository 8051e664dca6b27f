"""Loss landscapes of finished runs over planes of parameters."""
