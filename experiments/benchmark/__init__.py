"""What a training step of each method costs, beside SGD's: `python -m experiments.benchmark`."""
