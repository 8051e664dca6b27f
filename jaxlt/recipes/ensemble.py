"""Several runs of one recipe: which of them train together, and when."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import jax

from jaxlt.devices.processes import as_first_says, by_first, in_agreement
from jaxlt.recipes.built_recipe import BuiltRecipe, Member
from jaxlt.recipes.execution import EnsembleMode
from jaxlt.runs.run import Callback
from jaxlt.runs.workdir import Workdir
from jaxlt.training import at_one_step, device_memory, train, train_together

_logger = logging.getLogger(__name__)

# The rest is for evaluation and for the copies that checkpoints are made of.
_SHARE_OF_MEMORY = 0.75


def train_members(
    built: BuiltRecipe,
    members: Sequence[Member],
    *,
    label: str,
    mode: EnsembleMode = "auto",
    keep_checkpoints: int = 2,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Trains members to the end, begun ones being resumed, and returns their results.

    Of each it draws `reliability.png` into its directory.

    Args:
        built: what all of them run.
        members: of different seeds or radii; their directories are different too.
        label: name of the recipe in progress lines.
        mode: whether to train them together, see `Execution`.
        keep_checkpoints: how many of the latest are kept, beside the best.
        callbacks: each is handed every evaluation and measurement; members then train apart.

    Returns:
        For each member its last evaluation: `accuracy`, `balanced_accuracy`, `many`, `medium`,
        `few` (None for a group without class), `group_confusion`, `per_class`, `ece`, the fields
        of `ConfidenceBins` under `confidence_bins`, losses, `unreadable_evaluated` (evaluated
        images that were skipped), `step`, and `seconds` of training.

    Raises:
        UsageError: a radius is out of range, or a directory is not this recipe's; nothing in it
            is changed then.
        Interrupted: a signal asked to stop; the state is saved.
    """
    in_agreement(lambda: [built.check(member) for member in members])
    workdirs = [built.workdir(member) for member in members]
    largest = 1
    if len(members) > 1 and not callbacks and _together(built, mode):
        unfinished = [
            member
            for member, workdir in zip(members, workdirs, strict=True)
            if workdir.read_result() is None
        ]
        largest = _most_that_fit(built, unfinished)
    if largest > 1:
        _run_in_groups(built, members, workdirs, largest, label, keep_checkpoints)
    else:
        for member, workdir in zip(members, workdirs, strict=True):
            _run_alone(built, member, workdir, label, keep_checkpoints, callbacks)
    return [_result(workdir) for workdir in workdirs]


def _together(built: BuiltRecipe, mode: EnsembleMode) -> bool:
    if mode == "auto":
        # One convolution a member, XLA's form of a convolution under vmap, is slow on CPU.
        return jax.default_backend() != "cpu" or built.suits_loops
    return mode == "together"


def _most_that_fit(built: BuiltRecipe, members: Sequence[Member]) -> int:
    """Returns how many members fit in memory together, and says so if that is not all."""
    # In units that int32 holds; machines may differ, and all must come to the same groups.
    limit = as_first_says(device_memory() >> 10) * 2**10 * _SHARE_OF_MEMORY
    size = len(members)
    while size > 1:
        needed = built.job(members[:size]).bytes_needed()
        if needed <= limit:
            break
        size = min(size - 1, math.floor(size * limit / needed))
    size = max(1, size)
    if size < len(members):
        _logger.info(
            "of %d runs, %d at a time fit in %.2f GB of memory",
            len(members),
            size,
            limit / 1e9,
        )
    return size


def _run_in_groups(
    built: BuiltRecipe,
    members: Sequence[Member],
    workdirs: Sequence[Workdir],
    largest: int,
    label: str,
    keep_checkpoints: int,
) -> None:
    runs = list(zip(members, workdirs, strict=True))
    while waiting := [run for run in runs if run[1].read_result() is None]:
        # Runs at different steps cannot share a program, so those at other steps come later.
        chosen = at_one_step([workdir for _, workdir in waiting])[:largest]
        group = [waiting[index] for index in chosen]
        if len(group) == 1:
            _run_alone(built, *group[0], label, keep_checkpoints)
            continue
        names = [f"{label} {member.name}" for member, _ in group]
        group_label = f"{label}, {len(group)} runs"
        built.describe(group_label, f"{names[0]} to {names[-1]}")
        train_together(
            built.job([member for member, _ in group]),
            [workdir for _, workdir in group],
            keep_checkpoints=keep_checkpoints,
            label=group_label,
            labels=names,
        )


def _run_alone(
    built: BuiltRecipe,
    member: Member,
    workdir: Workdir,
    label: str,
    keep_checkpoints: int,
    callbacks: Sequence[Callback] = (),
) -> None:
    name = f"{label} {member.name}"
    built.describe(name, str(workdir.path))
    train(
        built.job([member]),
        workdir,
        keep_checkpoints=keep_checkpoints,
        label=name,
        callbacks=callbacks,
    )


def _result(workdir: Workdir) -> dict[str, Any]:
    result = workdir.read_result()
    assert result is not None, "train returns after the result is written"
    picture = workdir.path / "reliability.png"
    if as_first_says(not picture.exists()):
        # Matplotlib, of which training has no need.
        from jaxlt.evaluation.reliability_diagram import draw_run

        by_first(lambda: draw_run(workdir.path.name, result["confidence_bins"], picture))
    return result
