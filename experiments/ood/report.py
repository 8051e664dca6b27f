"""Tables, numbers and pictures of an evaluation on shifted images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ood.evaluations import Measured, Shifts
from experiments.presentation import (
    MEASURES,
    legend_beside,
    lines_of_panels,
    markdown_table,
    mean_and_deviation,
    percent,
    picture,
    run_styles,
)
from jaxlt.evaluation.calibration import MOST_NAMED, draw_diagram
from jaxlt.evaluation.corruptions import CORRUPTIONS, corruption_errors, mean_corruption_error

_CORRUPTED = "corrupted"
_MOST_PANELS_IN_A_LINE = 4
_COLUMNS = {**MEASURES, "ece": "ECE"}
_NOTE = (
    "Accuracies and ECE in percent. Those of corrupted images are means over corruptions and "
    "severities; the corruptions that ImageNet-C keeps for validation do not count in any mean."
)


class Report:
    """What is shown and saved of one run.

    The last set is all corrupted images that count: the means of their measures, and their
    confidences together. The mean error is mCE with a baseline, NaN without corruptions.
    """

    def __init__(
        self, shifts: Shifts, baseline: Mapping[str, Any] | None, baseline_name: str | None
    ):
        self.shifts, self.label, self.baseline = shifts, shifts.run.label, baseline_name
        self.sets = dict(shifts.sets)
        counted = [name for name in shifts.corrupted if name in CORRUPTIONS]
        parts = [one for name in counted for one in shifts.corrupted[name].values()]
        if parts:
            first, *rest = (one.calibration for one in parts)
            means = {name: float(np.mean([p.values[name] for p in parts])) for name in _COLUMNS}
            self.sets[_CORRUPTED] = Measured(means, sum(rest, first))
        self.errors = corruption_errors(shifts.errors, baseline)
        self.mean_error = mean_corruption_error(self.errors)

    def values(self) -> dict[str, Any]:
        """Returns what is saved as JSON."""
        values: dict[str, Any] = {"sets": {name: one.values for name, one in self.sets.items()}}
        if self.errors:
            mean = "mean_corruption_error" if self.baseline else "mean_error_unnormalized"
            values |= {"baseline": self.baseline, mean: self.mean_error}
            values["corruption_errors"] = self.errors
            values["corruptions"] = {
                name: {severity: one.values for severity, one in found.items()}
                for name, found in self.shifts.corrupted.items()
            }
        return values


def format_tables(reports: Sequence[Report]) -> str:
    """Renders the sets of all runs, and under them the corruptions, as Markdown."""
    rows = [
        [one.label, name, *(_percent(measured.values[c]) for c in _COLUMNS)]
        for one in reports
        for name, measured in one.sets.items()
    ]
    paragraphs = [markdown_table(["run", "images", *_COLUMNS.values()], rows, left=2)]
    if reports[0].errors:
        paragraphs += _corruptions(reports)
    return "\n\n".join([*paragraphs, _NOTE])


def _corruptions(reports: Sequence[Report]) -> list[str]:
    first = reports[0]
    rows = [[name, *(_percent(one.errors[name]) for one in reports)] for name in first.errors]
    mean = "mCE" if first.baseline else "mean error"
    rows.append([mean, *(_percent(one.mean_error) for one in reports)])
    if first.baseline:
        what = f"Corruption errors in percent of those of {first.baseline}; mCE is their mean"
    else:
        what = (
            "Errors in percent, means over severities, not normalized by a baseline; the mean "
            "error is no mCE, it is their mean"
        )
    counted = sum(name in CORRUPTIONS for name in first.errors)
    return [
        markdown_table(["corruption", *(one.label for one in reports)], rows),
        f"{what} over {counted} of ImageNet-C's {len(CORRUPTIONS)} corruptions.",
    ]


def _percent(share: float | None) -> str:
    return mean_and_deviation([percent(share)], 2)


def draw_corruptions(reports: Sequence[Report], path: Path) -> None:
    """Draws each run's errors by corruption, means over severities, and by severity."""
    names = list(reports[0].errors)
    places, severities = range(len(names)), range(1, 6)
    with picture(path, 1, 2, (11, 5.5), width_ratios=(2, 1)) as (figure, panels):
        by_name, by_severity = panels[0]
        for one, style in zip(reports, run_styles([one.label for one in reports]), strict=True):
            errors = 100 * np.array([one.shifts.errors[name] for name in names])
            points = {**style, "linestyle": ""}
            by_name.plot(errors.mean(axis=1), places, label=one.label, **points)
            by_severity.plot(severities, errors.mean(axis=0), label=one.label, **style)
        by_name.set_yticks(places, [name.replace("_", " ") for name in names])
        by_name.invert_yaxis()
        by_name.set_xlabel("error, mean over severities (%)")
        by_severity.set(xlabel="severity", xticks=severities)
        by_severity.set_ylabel("error, mean over corruptions (%)")
        for axes in panels[0]:
            axes.grid(alpha=0.3)
        legend_beside(figure, by_severity)


def draw_reliability(reports: Sequence[Report], path: Path) -> None:
    """Draws a reliability diagram of each set of images."""
    names = list(reports[0].sets)
    lines, width = lines_of_panels(len(names), _MOST_PANELS_IN_A_LINE)
    with picture(path, lines, width, (1 + 3.6 * width, 3.8 * lines)) as (figure, panels):
        for name, axes in zip(names, panels.flat, strict=False):
            bins = {one.label: one.sets[name].calibration for one in reports}
            draw_diagram(axes, bins, run_styles(list(bins)))
            axes.set_title(f"{name}, pooled" if name == _CORRUPTED else name, fontsize="medium")
        if len(reports) > MOST_NAMED:
            legend_beside(figure, panels[0, 0])
