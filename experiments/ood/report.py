"""Tables and numbers of an evaluation on shifted images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from experiments.ood.evaluations import Measured, Shifts
from experiments.presentation import MEASURES, mean_and_deviation, percent
from jaxlt.evaluation import ConfidenceBins
from jaxlt.evaluation.corruptions import (
    CORRUPTIONS,
    corruption_errors,
    mean_corruption_error,
)
from jaxlt.recipes.trained_run import TrainedRun

_CORRUPTED = "corrupted"
_COLUMNS = {**MEASURES, "ece": "ECE"}
_NOTE = (
    "Accuracies and ECE in percent. Those of corrupted images are means over corruptions and "
    "severities; the corruptions that ImageNet-C keeps for validation do not count in any mean."
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What is shown and saved of one run.

    Attributes:
        label: of the run.
        sets: measures of each set of images.
        bins: confidences of each set, those of all corrupted images together.
        severities: for each corruption its errors, (5,) in [0, 1].
        by_severity: measures by corruption and severity.
        errors: corruption error of each corruption.
        mean_error: mCE, or the mean of unnormalised errors; NaN without corruptions.
        baseline: name of what the errors are normalised by, None if they are not.
    """

    label: str
    sets: dict[str, dict[str, Any]]
    bins: dict[str, ConfidenceBins]
    severities: dict[str, np.ndarray]
    by_severity: dict[str, dict[int, dict[str, Any]]]
    errors: dict[str, float]
    mean_error: float
    baseline: str | None

    def values(self) -> dict[str, Any]:
        """Returns what is saved as JSON."""
        values: dict[str, Any] = {"sets": self.sets}
        if self.severities:
            name = "mean_corruption_error" if self.baseline else "mean_error_unnormalised"
            values |= {
                "baseline": self.baseline,
                name: self.mean_error,
                "corruption_errors": self.errors,
                "corruptions": self.by_severity,
            }
        return values


def report(
    run: TrainedRun,
    shifts: Shifts,
    baseline: Mapping[str, np.ndarray | float] | None,
    baseline_name: str | None,
) -> Report:
    """Computes what is reported of a run.

    Args:
        run: the run.
        shifts: its evaluations.
        baseline: errors of the baseline, see `corruption_errors`.
        baseline_name: for people.
    """
    severities = errors_of(shifts)
    by_severity = {
        name: {severity: _measures(run, one) for severity, one in evaluations.items()}
        for name, evaluations in shifts.corrupted.items()
    }
    sets = {name: _measures(run, evaluation) for name, evaluation in shifts.sets.items()}
    bins = {name: evaluation.calibration for name, evaluation in shifts.sets.items()}
    counted = [
        (by_severity[name][severity], evaluation.calibration)
        for name, evaluations in shifts.corrupted.items()
        for severity, evaluation in evaluations.items()
        if name in CORRUPTIONS
    ]
    if counted:
        sets[_CORRUPTED] = {
            name: float(np.mean([measures[name] for measures, _ in counted])) for name in _COLUMNS
        }
        first, *rest = (calibration for _, calibration in counted)
        bins[f"{_CORRUPTED}, pooled"] = sum(rest, first)
    errors = corruption_errors(severities, baseline)
    return Report(
        run.label,
        sets,
        bins,
        severities,
        by_severity,
        errors,
        mean_corruption_error(errors),
        baseline_name,
    )


def errors_of(shifts: Shifts) -> dict[str, np.ndarray]:
    """Returns for each corruption the errors at the severities 1 to 5."""
    return {
        name: np.array([1 - evaluations[severity].accuracy for severity in sorted(evaluations)])
        for name, evaluations in shifts.corrupted.items()
    }


def _measures(run: TrainedRun, evaluation: Measured) -> dict[str, Any]:
    return {
        "images": evaluation.images,
        "accuracy": evaluation.accuracy,
        "balanced_accuracy": evaluation.balanced_accuracy,
        **run.by_group(evaluation.per_class),
        "ece": evaluation.calibration.ece,
        "maximum_calibration_error": evaluation.calibration.mce,
        "per_class": evaluation.per_class.tolist(),
    }


def format_tables(reports: Sequence[Report]) -> str:
    """Renders the sets of all runs, and under them the corruptions, as Markdown."""
    rows = [
        [one.label, name] + [_number(percent(measures[c])) for c in _COLUMNS]
        for one in reports
        for name, measures in one.sets.items()
    ]
    paragraphs = [_table(["run", "images", *_COLUMNS.values()], rows, left=2)]
    if reports[0].severities:
        paragraphs += [_corruption_table(reports), _what_errors_are(reports[0])]
    return "\n\n".join([*paragraphs, _NOTE])


def _corruption_table(reports: Sequence[Report]) -> str:
    rows = [
        [name, *(_number(percent(one.errors[name])) for one in reports)]
        for name in reports[0].errors
    ]
    mean = "mCE" if reports[0].baseline else "mean error"
    rows.append([mean, *(_number(percent(one.mean_error)) for one in reports)])
    return _table(["corruption", *(one.label for one in reports)], rows, left=1)


def _what_errors_are(one: Report) -> str:
    counted = sum(name in CORRUPTIONS for name in one.errors)
    if one.baseline:
        what = f"Corruption errors in percent of those of {one.baseline}; mCE is their mean"
    else:
        what = (
            "Errors in percent, means over severities, not normalised by a baseline; the mean "
            "error is no mCE, it is their mean"
        )
    return f"{what} over {counted} of ImageNet-C's {len(CORRUPTIONS)} corruptions."


def _number(value: float) -> str:
    return mean_and_deviation([value], 2)


def _table(headers: list[str], rows: list[list[str]], left: int) -> str:
    alignment = ("left",) * left + ("right",) * (len(headers) - left)
    return tabulate(rows, headers, tablefmt="github", colalign=alignment, disable_numparse=True)
