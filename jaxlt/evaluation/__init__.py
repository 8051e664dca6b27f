"""Measures of a classifier on a test set, and its predictions for single images."""

from jaxlt.evaluation.accuracy import Evaluated as Evaluated
from jaxlt.evaluation.accuracy import ShotGroups as ShotGroups
from jaxlt.evaluation.accuracy import evaluate as evaluate
from jaxlt.evaluation.accuracy import group_accuracy as group_accuracy
from jaxlt.evaluation.accuracy import group_confusion as group_confusion
from jaxlt.evaluation.calibration import ConfidenceBins as ConfidenceBins
from jaxlt.evaluation.prediction import Prediction as Prediction
from jaxlt.evaluation.prediction import Predictor as Predictor
