"""Losses of a batch: their sums by class, the features and classifier behind them, class counts."""
