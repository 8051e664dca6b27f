"""Runs that differ in nothing but their seed, as one row of a table or one line of a picture."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.finished_run import FinishedRun

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
    labelled: dict[str, list[int]] = {}
    for numbers in rows.values():
        label = _label([runs[number] for number in numbers])
        while label in labelled:
            label += "'"
        labelled[label] = numbers
    return labelled


def _label(runs: Sequence[FinishedRun]) -> str:
    step = runs[0].step
    labels = [run.label.removesuffix(f"/checkpoints/{step}") for run in runs]
    common = os.path.commonpath(labels) or labels[0]
    return common if step is None else f"{common}, step {step}"
