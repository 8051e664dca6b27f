"""Measures of a classifier on a test set."""

from jaxlt.evaluation.accuracy import Evaluation, ShotGroups, evaluate, group_accuracy

__all__ = ["Evaluation", "ShotGroups", "evaluate", "group_accuracy"]
