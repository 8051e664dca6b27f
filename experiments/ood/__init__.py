"""Finished runs on images of another distribution: `python -m experiments.ood`."""
