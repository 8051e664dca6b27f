"""Hostile files for every reader of what others wrote, by Atheris and by the quick tests."""
