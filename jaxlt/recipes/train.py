"""From a recipe to trained runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlt.recipes.part import check
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe
from jaxlt.recipes.recorded import TrainedRun

if TYPE_CHECKING:
    from jaxlt.runs.run import Callback


def train(
    recipe: Recipe,
    workdir: str | Path,
    *,
    seed: int = 0,
    callbacks: "Sequence[Callback]" = (),
    execution: Execution = DEFAULT_EXECUTION,
) -> TrainedRun:
    """Trains a recipe to the end, from the newest checkpoint of the workdir if there is one.

    Args:
        recipe: what to train.
        workdir: directory of the run, created if missing.
        seed: of parameters, data order and augmentation.
        callbacks: each is handed every evaluation and measurement as written in `metrics.jsonl`: a
            dictionary with `step`, of numbers, lists and dictionaries of them, None for NaN.
        execution: how the run is computed, which changes no number of it beyond rounding.

    Raises:
        UsageError: the recipe does not fit its data, or the workdir holds another run.
        Interrupted: a signal asked to stop; the state is saved.

    Example:
        >>> from jaxlt import recipes
        >>> run = recipes.train(recipes.named("sam_digits"), "runs/sam", seed=1)
        >>> run.result["balanced_accuracy"] > 0.8
        True
    """
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members

    check("recipe", recipe, isinstance(recipe, Recipe), "a Recipe, such as named(NAME)")
    check("seed", seed, hasattr(seed, "__index__"), "an integer")
    are_functions = isinstance(callbacks, Sequence) and all(map(callable, callbacks))
    check("callbacks", callbacks, are_functions, "a list of functions")
    enable_compilation_cache()
    path = Path(workdir)
    built = BuiltRecipe(recipe, execution)
    train_members(built, [Member(seed, path)], label=path.name, callbacks=callbacks)
    return TrainedRun(path)
