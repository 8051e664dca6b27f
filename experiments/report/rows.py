"""Rows of a report: the replicas of one recipe, averaged."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.replica_rows import shared_recipe
from experiments.report.reading import Evaluation, Measurement, Run, Task

_MISSING = "-"
_Record = TypeVar("_Record", Evaluation, Measurement)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Runs whose recipes are equal but for the seed and the images it draws.

    Attributes:
        label: short name, different from those of other rows.
        runs: the replicas, R of them.
    """

    label: str
    runs: list[Run]

    @property
    def task(self) -> Task:
        """What all replicas learned."""
        return self.runs[0].task

    @property
    def recipe(self) -> dict[str, Any]:
        """What the replicas share."""
        return shared_recipe(self.runs[0].recipe)

    def final(self, name: str) -> list[float]:
        """Returns a number of each replica's last evaluation."""
        return [run.result.numbers[name] for run in self.runs]


class Curve(NamedTuple):
    """Numbers over steps.

    Attributes:
        steps: (n,) ascending.
        mean: (n,) over the replicas that know the number.
        deviation: (n,) their sample deviation, 0 for a single one.
    """

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def over_replicas(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    """Averages over replicas at the moments that all of them have.

    Args:
        records: of each replica.
        value: the number of a record, NaN where it is unknown.

    Returns:
        The curve where it is known; None if it is nowhere.
    """
    by_moment = [{record.moment: value(record) for record in replica} for replica in records]
    moments = sorted(set.intersection(*(set(replica) for replica in by_moment)))
    if not moments:
        return None
    values = np.array([[replica[moment] for moment in moments] for replica in by_moment])
    mean, spread = over_replicas(values)
    known = ~np.isnan(mean)
    if not known.any():
        return None
    steps = np.array([moment.step for moment in moments])
    return Curve(steps[known], mean[known], spread[known])


def rows_of(runs: Sequence[Run], root: Path) -> list[Row]:
    """Groups runs by recipe, in the order of their first replicas.

    Args:
        runs: at least one.
        root: directory that all of them are in.
    """
    groups: dict[object, list[Run]] = {}
    for run in runs:
        shared = json.dumps(shared_recipe(run.recipe), sort_keys=True)
        groups.setdefault((shared, run.task), []).append(run)
    labels = _labels([Row("", replicas) for replicas in groups.values()], root)
    return [Row(label, group) for label, group in zip(labels, groups.values(), strict=True)]


def differing_fields(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Returns the fields of recipes in which rows differ, with each row's value as text."""
    fields = dict.fromkeys(name for row in rows for name in row.recipe)
    shown = {name: [_shown(row.recipe, name) for row in rows] for name in fields}
    return {name: values for name, values in shown.items() if len(set(values)) > 1}


def shared_fields(rows: Sequence[Row]) -> dict[str, str]:
    """Returns the fields of recipes in which no two rows differ, as text."""
    different = differing_fields(rows)
    recipe = rows[0].recipe
    return {name: _shown(recipe, name) for name in recipe if name not in different}


def printable(text: str) -> str:
    """Replaces what neither XML nor a font has, such as control characters."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _shown(recipe: Mapping[str, Any], name: str) -> str:
    if name not in recipe:
        return _MISSING
    value = recipe[name]
    return value if isinstance(value, str) else json.dumps(value)


def _labels(rows: Sequence[Row], root: Path) -> list[str]:
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


def _path_label(row: Row, root: Path) -> str:
    common = Path(os.path.commonpath([run.path for run in row.runs]))
    # A run of METHOD/seedN alone is the method's.
    if len(row.runs) == 1 and common.name == f"seed{row.runs[0].recipe['seed']}":
        common = common.parent
    return str(common.relative_to(root)) if root in common.parents else common.name


def _recipe_labels(rows: Sequence[Row]) -> list[str]:
    """Returns the method, and so many further fields as it takes to tell the rows apart."""
    different = differing_fields(rows)
    labels = [row.recipe["method"] for row in rows]
    different.pop("method", None)
    for name, values in different.items():
        if len(set(labels)) == len(rows):
            break
        longer = [f"{label}, {name} {one}" for label, one in zip(labels, values, strict=True)]
        if len(set(longer)) > len(set(labels)):
            labels = longer
    return labels


def tasks_of(rows: Sequence[Row]) -> Iterator[tuple[Task, list[Row]]]:
    """Yields each task with its rows."""
    for task in dict.fromkeys(row.task for row in rows):
        yield task, [row for row in rows if row.task == task]
