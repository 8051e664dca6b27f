"""From a recipe to a trained run, in one call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlt.recipes.execution import DEFAULT_EXECUTION, Execution
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.trained_run import TrainedRun

Callback = Callable[[dict[str, Any]], object]


def train(
    recipe: Recipe,
    workdir: str | Path,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    execution: Execution = DEFAULT_EXECUTION,
) -> TrainedRun:
    """Trains a recipe to the end, from the newest checkpoint of the workdir if there is one.

    Args:
        recipe: what to train.
        workdir: directory of the run, created if missing.
        seed: of parameters, data order and augmentation.
        callbacks: each is handed every evaluation and measurement as a dictionary of plain
            numbers, with `step`.
        execution: how the run is computed, which changes no number of it beyond rounding.

    Returns:
        The finished run.

    Raises:
        UsageError: the recipe does not fit its data, or the workdir holds another run.
        Interrupted: a signal asked to stop; the state is saved.
    """
    from jaxlt.devices.compilation_cache import enable_compilation_cache
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member
    from jaxlt.recipes.ensemble import train_members

    enable_compilation_cache()
    path = Path(workdir)
    train_members(
        BuiltRecipe(recipe, execution),
        [Member(seed, path)],
        label=path.name,
        keep_checkpoints=execution.keep_checkpoints,
        callbacks=callbacks,
    )
    return TrainedRun(path)
