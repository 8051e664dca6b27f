"""Efficiency to be expected on many accelerators, on paper: `python -m experiments.scaling`."""
