"""The runs that a table is made of: those that are missing are trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.table.processes import Run, train_in_processes
from experiments.table.results import finished_runs, run_directory
from jaxlt.recipes.execution import Execution
from jaxlt.recipes.recipe import Recipe


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
    missing = {
        name: runs
        for name, recipe in recipes.items()
        if (runs := _unfinished(name, recipe, seeds, directory))
    }
    if jobs > 1 and missing:
        train_in_processes([run for runs in missing.values() for run in runs], jobs, execution)
    elif missing:
        _train_here(missing, execution)


def _unfinished(name: str, recipe: Recipe, seeds: Sequence[int], directory: Path) -> list[Run]:
    finished = finished_runs(directory, name, recipe, seeds)
    left = [seed for seed in seeds if seed not in finished]
    return [Run(name, recipe, seed, run_directory(directory, name, seed)) for seed in left]


def _train_here(missing: Mapping[str, Sequence[Run]], execution: Execution) -> None:
    # The parent of several processes has no need of these.
    from jaxlt.devices.compilation_cache import enable_compilation_cache
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member
    from jaxlt.recipes.ensemble import train_members

    enable_compilation_cache()
    for name, runs in missing.items():
        train_members(
            BuiltRecipe(runs[0].recipe, execution),
            [Member(run.seed, run.path) for run in runs],
            label=name,
            mode=execution.ensemble,
            keep_checkpoints=execution.keep_checkpoints,
        )
