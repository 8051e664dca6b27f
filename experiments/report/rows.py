"""Rows of a report: the members of one recipe, averaged."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.report.reading import LearnedClasses, learned_by
from jaxlt.recipes.part import shown
from jaxlt.recipes.recorded import RecordedRecipe
from jaxlt.recipes.trained_run import TrainedRun
from jaxlt.runs.differences import differences, flattened, key_but_for_seed, shared_by_seeds
from jaxlt.runs.records import EvaluationRecord, MeasurementRecord

_Record = TypeVar("_Record", EvaluationRecord, MeasurementRecord)


@dataclasses.dataclass(frozen=True, eq=False)
class SeedsRow:
    """Runs whose recipes are equal but for the seed and the images it draws.

    Attributes:
        label: short name, different from those of other rows.
        runs: the members, R of them.
    """

    label: str
    runs: list[TrainedRun]

    @property
    def learned(self) -> LearnedClasses:
        """What all members learned."""
        return learned_by(self.runs[0])

    @property
    def recipe(self) -> RecordedRecipe:
        """The recipe that the members share."""
        return self.runs[0].recorded

    @property
    def identity(self) -> dict[str, Any]:
        """What the members share of `recipe.json`."""
        return shared_by_seeds(self.runs[0].files.identity)

    def final(self, name: str) -> list[Any]:
        """Returns a number of each member's last evaluation."""
        return [getattr(run.files.result, name) for run in self.runs]


class Curve(NamedTuple):
    """Numbers over steps.

    Attributes:
        steps: (n,) ascending.
        mean: (n,) over the members that know the number.
        deviation: (n,) their sample deviation, 0 for a single one.
    """

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages over the first axis, NaN entries being left out.

    Args:
        values: (R, ...).

    Returns:
        (...) means, NaN where all entries are, and sample deviations, 0 for a single entry.
    """
    known = ~np.isnan(values)
    number = known.sum(axis=0)
    mean = np.full(values.shape[1:], np.nan)
    np.divide(np.where(known, values, 0).sum(axis=0), number, out=mean, where=number > 0)
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(squares / np.maximum(number - 1, 1))


def curve(records: Sequence[Sequence[_Record]], value: Callable[[_Record], float]) -> Curve | None:
    """Averages over members at the moments that all of them have.

    Args:
        records: of each member.
        value: the number of a record, NaN where it is unknown.

    Returns:
        The curve where it is known; None if it is nowhere.
    """
    by_moment = [{record.time: value(record) for record in member} for member in records]
    moments = sorted(set.intersection(*(set(member) for member in by_moment)))
    if not moments:
        return None
    values = np.array([[member[moment] for moment in moments] for member in by_moment])
    mean, spread = over_seeds(values)
    known = ~np.isnan(mean)
    if not known.any():
        return None
    steps = np.array([moment.step for moment in moments])
    return Curve(steps[known], mean[known], spread[known])


def rows_of(runs: Sequence[TrainedRun], root: Path) -> list[SeedsRow]:
    """Groups runs by recipe, in the order of their first members.

    Args:
        runs: at least one.
        root: directory that all of them are in.
    """
    groups: dict[object, list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault((key_but_for_seed(run.files.identity), learned_by(run)), []).append(run)
    labels = _labels([SeedsRow("", members) for members in groups.values()], root)
    return [SeedsRow(label, group) for label, group in zip(labels, groups.values(), strict=True)]


def differing_fields(rows: Sequence[SeedsRow]) -> dict[str, list[str]]:
    """Returns the flags in which the rows' recipes differ, with each row's value as text."""
    found = differences([row.identity for row in rows])
    return {name: list(map(shown, values)) for name, values in found.items()}


def shared_fields(rows: Sequence[SeedsRow]) -> dict[str, str]:
    """Returns the flags in which no two rows' recipes differ, as text."""
    first, *others = (flattened(row.identity) for row in rows)
    return {
        name: shown(value)
        for name, value in first.items()
        if all(name in one and one[name] == value for one in others)
    }


def printable(text: str) -> str:
    """Replaces what neither XML nor a font has, such as control characters."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _labels(rows: Sequence[SeedsRow], root: Path) -> list[str]:
    """Returns what the rows' paths differ in; where they are mixed, what the recipes do."""
    for labels in ([_path_label(row, root) for row in rows], _recipe_labels(rows)):
        if len(set(labels)) == len(rows):
            return [printable(label) for label in labels]
    # Other data under one name: their recipes are equal.
    labels = _recipe_labels(rows)
    number = Counter[str]()
    unique: list[str] = []
    for label in labels:
        number[label] += 1
        unique.append(printable(f"{label} ({number[label]})"))
    return unique


def _path_label(row: SeedsRow, root: Path) -> str:
    common = Path(os.path.commonpath([run.path for run in row.runs]))
    # A run of METHOD/seedN alone is the method's.
    if len(row.runs) == 1 and common.name == f"seed{row.runs[0].files.seed}":
        common = common.parent
    return str(common.relative_to(root)) if root in common.parents else common.name


def _recipe_labels(rows: Sequence[SeedsRow]) -> list[str]:
    """Returns the method, and so many further fields as it takes to tell the rows apart."""
    different = differing_fields(rows)
    labels = [row.recipe.method_name for row in rows]
    different.pop("method", None)
    for name, values in different.items():
        if len(set(labels)) == len(rows):
            break
        longer = [f"{label}, {name} {one}" for label, one in zip(labels, values, strict=True)]
        if len(set(longer)) > len(set(labels)):
            labels = longer
    return labels


def by_classes(rows: Sequence[SeedsRow]) -> Iterator[tuple[LearnedClasses, list[SeedsRow]]]:
    """Yields what was learned, each with its rows."""
    for learned in dict.fromkeys(row.learned for row in rows):
        yield learned, [row for row in rows if row.learned == learned]
