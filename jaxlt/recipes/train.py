"""From a recipe to trained runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlt.devices.processes import as_first_says, by_first, in_agreement
from jaxlt.recipes.part import check
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe
from jaxlt.recipes.recorded import TrainedRun

if TYPE_CHECKING:
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member
    from jaxlt.runs.run import Callback
    from jaxlt.runs.workdir import Workdir


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
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member

    check("recipe", recipe, isinstance(recipe, Recipe), "a Recipe, such as named(NAME)")
    check("seed", seed, hasattr(seed, "__index__"), "an integer")
    are_functions = isinstance(callbacks, Sequence) and all(map(callable, callbacks))
    check("callbacks", callbacks, are_functions, "a list of functions")
    enable_compilation_cache()
    path = Path(workdir)
    built = BuiltRecipe(recipe, execution)
    train_members(built, [Member(seed, path)], label=path.name, callbacks=callbacks)
    return TrainedRun(path)


def train_members(
    built: "BuiltRecipe",
    members: Sequence["Member"],
    *,
    label: str,
    callbacks: "Sequence[Callback]" = (),
) -> list[dict[str, Any]]:
    """Trains members to the end, begun ones being resumed, and returns their last evaluations.

    Their seeds or radii and their directories differ; with callbacks they train apart. `label` is
    the recipe's name in progress lines. UsageError says that a radius is out of range, or that a
    directory is another recipe's; nothing in it is changed then.
    """
    in_agreement(lambda: [built.check(member) for member in members])
    runs = [(member, built.workdir(member)) for member in members]
    together = 1
    if len(runs) > 1 and not callbacks:
        from jaxlt.recipes import ensemble

        together = ensemble.most_together(built, runs)
        if together > 1:
            ensemble.train_in_groups(built, runs, together, label)
    if together == 1:
        for member, workdir in runs:
            train_alone(built, member, workdir, label, callbacks)
    return [_result(workdir) for _, workdir in runs]


def train_alone(
    built: "BuiltRecipe",
    member: "Member",
    workdir: "Workdir",
    label: str,
    callbacks: "Sequence[Callback]" = (),
) -> None:
    """Trains one member, see `train_members`."""
    from jaxlt import training

    name = f"{label} {member.name}"
    built.describe(name, str(workdir.path))
    training.train(
        built.job(member),
        workdir,
        keep_checkpoints=built.execution.keep_checkpoints,
        label=name,
        callbacks=callbacks,
    )


def _result(workdir: "Workdir") -> dict[str, Any]:
    result = workdir.read_result()
    assert result is not None, "train returns after the result is written"
    picture = workdir.path / "reliability.png"
    if as_first_says(not picture.exists()):
        from jaxlt.evaluation.calibration import draw_run

        by_first(lambda: draw_run(workdir.path.name, result["confidence_bins"], picture))
    return result
