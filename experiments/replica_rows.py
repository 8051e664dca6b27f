"""Runs that differ in nothing but their seed, as one row of a table or one line of a picture."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.finished_run import FinishedRun, with_step

_OF_REPLICAS = ("seed", "images")


def shared_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what replicas share of `recipe.json`: all but the seed and the images it draws."""
    return {name: value for name, value in recipe.items() if name not in _OF_REPLICAS}


def replica_rows(runs: Sequence[FinishedRun]) -> dict[str, list[int]]:
    """Returns the numbers of the runs of each row, by a label of what their paths have in common.

    Runs are replicas if their recipes are the same but for the seed, and their checkpoints are of
    one step or all the newest.
    """
    rows: dict[tuple, list[int]] = {}
    for number, run in enumerate(runs):
        key = (run.step, json.dumps(shared_recipe(run.recipe), sort_keys=True))
        rows.setdefault(key, []).append(number)
    root = Path(os.path.commonpath([run.path.absolute().parent for run in runs]))
    labelled: dict[str, list[int]] = {}
    for numbers in rows.values():
        label = _label([runs[number] for number in numbers], root)
        while label in labelled:
            label += "'"
        labelled[label] = numbers
    return labelled


def _label(runs: Sequence[FinishedRun], root: Path) -> str:
    common = Path(os.path.commonpath([run.path.absolute() for run in runs]))
    name = common.name if common == root else str(common.relative_to(root))
    return with_step(name, runs[0].step)
