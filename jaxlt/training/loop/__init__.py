"""The training loop around compiled steps: progress, signals, stages."""
