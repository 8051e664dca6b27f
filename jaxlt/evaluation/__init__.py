"""Measures of a classifier on a test set, and its predictions for single images."""

from jaxlt.evaluation.accuracy import (
    Evaluation,
    ShotGroups,
    evaluate,
    group_accuracy,
    group_confusion,
)
from jaxlt.evaluation.calibration import ConfidenceBins
from jaxlt.evaluation.prediction import Prediction, Predictor

__all__ = [
    "ConfidenceBins",
    "Evaluation",
    "Prediction",
    "Predictor",
    "ShotGroups",
    "evaluate",
    "group_accuracy",
    "group_confusion",
]
