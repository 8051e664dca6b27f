"""The runs that a table is made of: those that are missing are trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.execution import Execution
from experiments.experiment import Experiment, Replica
from experiments.recipe import Recipe
from experiments.runs import run_all
from experiments.table.results import finished_runs, run_directory
from experiments.table.workers import Task, train_in_processes
from jaxlt.devices.compilation_cache import enable_compilation_cache


class _Missing(NamedTuple):
    name: str
    recipe: Recipe
    replicas: list[Replica]


def train_missing(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    directory: Path,
    *,
    jobs: int,
    execution: Execution,
) -> None:
    """Trains every recipe with every seed, begun runs being resumed and finished ones left alone.

    Args:
        recipes: by name; the runs go to `NAME/seedN`.
        seeds: of each recipe.
        directory: of all runs.
        jobs: processes that train at the same time. With one, this process trains.
        execution: how the runs are computed; several processes train each run apart.

    Raises:
        UsageError: a directory holds something else than its run, which is found before anything
            is trained or written, or a recipe does not fit its data.
        Interrupted: a signal asked to stop; the state of the runs is saved.
    """
    missing = [
        _Missing(name, recipe, replicas)
        for name, recipe in recipes.items()
        if (replicas := _unfinished(name, recipe, seeds, directory))
    ]
    if jobs == 1:
        enable_compilation_cache()
        for name, recipe, replicas in missing:
            experiment = Experiment(recipe, execution)
            run_all(
                experiment,
                replicas,
                label=name,
                mode=execution.replicas,
                keep_checkpoints=execution.keep_checkpoints,
            )
    else:
        tasks = [Task(name, recipe, one) for name, recipe, some in missing for one in some]
        train_in_processes(tasks, jobs, execution)


def _unfinished(name: str, recipe: Recipe, seeds: Sequence[int], directory: Path) -> list[Replica]:
    finished = finished_runs(directory, name, recipe, seeds)
    left = [seed for seed in seeds if seed not in finished]
    return [Replica(seed, run_directory(directory, name, seed)) for seed in left]
