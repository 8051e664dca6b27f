"""Several runs of one recipe: which of them train together, and when."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.execution import ReplicasMode
from experiments.experiment import Experiment, Replica
from jaxlt.devices.processes import as_first_says, by_first, in_agreement
from jaxlt.training import Workdir, at_one_step, device_memory, train, train_together

_logger = logging.getLogger(__name__)

# The rest is for evaluation and for the copies that checkpoints are made of.
_SHARE_OF_MEMORY = 0.75


def run_all(
    experiment: Experiment,
    replicas: Sequence[Replica],
    *,
    label: str,
    mode: ReplicasMode = "auto",
    keep_checkpoints: int = 2,
) -> list[dict[str, Any]]:
    """Trains replicas to the end, begun ones being resumed, and returns their results.

    Of each it draws `reliability.png` into its directory.

    Args:
        experiment: what all of them run.
        replicas: of different seeds or radii; their directories are different too.
        label: name of the experiment in progress lines.
        mode: whether to train them together, see `Execution`.
        keep_checkpoints: how many of the latest are kept, beside the best.

    Returns:
        For each replica its last evaluation: `accuracy`, `balanced_accuracy`, `many`, `medium`,
        `few` (None for a group without class), `group_confusion`, `per_class`, `ece`, the fields
        of `ConfidenceBins` under `confidence_bins`, losses, `unreadable_evaluated` (evaluated
        images that were skipped), `step`, and `seconds` of training.

    Raises:
        UsageError: a radius is out of range, or a directory is not this recipe's; nothing in it
            is changed then.
        Interrupted: a signal asked to stop; the state is saved.
    """
    in_agreement(lambda: [experiment.check(replica) for replica in replicas])
    workdirs = [experiment.workdir(replica) for replica in replicas]
    largest = 1
    if len(replicas) > 1 and _together(experiment, mode):
        unfinished = [
            replica
            for replica, workdir in zip(replicas, workdirs, strict=True)
            if workdir.read_result() is None
        ]
        largest = _most_that_fit(experiment, unfinished)
    if largest > 1:
        _run_in_groups(experiment, replicas, workdirs, largest, label, keep_checkpoints)
    else:
        for replica, workdir in zip(replicas, workdirs, strict=True):
            _run_alone(experiment, replica, workdir, label, keep_checkpoints)
    return [_result(workdir) for workdir in workdirs]


def _together(experiment: Experiment, mode: ReplicasMode) -> bool:
    if mode == "auto":
        # One convolution a replica, XLA's form of a convolution under vmap, is slow on CPU.
        return jax.default_backend() != "cpu" or experiment.suits_loops
    return mode == "together"


def _most_that_fit(experiment: Experiment, replicas: Sequence[Replica]) -> int:
    """Returns how many replicas fit in memory together, and says so if that is not all."""
    # In units that int32 holds; machines may differ, and all must come to the same groups.
    limit = as_first_says(device_memory() >> 20) * 2**20 * _SHARE_OF_MEMORY
    size = len(replicas)
    while size > 1:
        needed = experiment.job(replicas[:size]).bytes_needed()
        if needed <= limit:
            break
        size = min(size - 1, math.floor(size * limit / needed))
    size = max(1, size)
    if size < len(replicas):
        _logger.info(
            "of %d replicas, %d at a time fit in %.2f GB of memory",
            len(replicas),
            size,
            limit / 1e9,
        )
    return size


def _run_in_groups(
    experiment: Experiment,
    replicas: Sequence[Replica],
    workdirs: Sequence[Workdir],
    largest: int,
    label: str,
    keep_checkpoints: int,
) -> None:
    runs = list(zip(replicas, workdirs, strict=True))
    while waiting := [run for run in runs if run[1].read_result() is None]:
        # Runs at different steps cannot share a program, so those at other steps come later.
        chosen = at_one_step([workdir for _, workdir in waiting])[:largest]
        group = [waiting[index] for index in chosen]
        if len(group) == 1:
            _run_alone(experiment, *group[0], label, keep_checkpoints)
            continue
        names = [f"{label} {replica.name}" for replica, _ in group]
        group_label = f"{label}, {len(group)} replicas"
        experiment.describe(group_label, f"{names[0]} to {names[-1]}")
        train_together(
            experiment.job([replica for replica, _ in group]),
            [workdir for _, workdir in group],
            keep_checkpoints=keep_checkpoints,
            label=group_label,
            labels=names,
        )


def _run_alone(
    experiment: Experiment, replica: Replica, workdir: Workdir, label: str, keep_checkpoints: int
) -> None:
    name = f"{label} {replica.name}"
    experiment.describe(name, str(workdir.path))
    train(experiment.job([replica]), workdir, keep_checkpoints=keep_checkpoints, label=name)


def _result(workdir: Workdir) -> dict[str, Any]:
    result = workdir.read_result()
    assert result is not None, "train returns after the result is written"
    picture = workdir.path / "reliability.png"
    # A run that an earlier version finished has no bins.
    if "confidence_bins" in result and as_first_says(not picture.exists()):
        # Matplotlib, of which training has no need.
        from experiments.reliability_diagram import draw_run
        from jaxlt.evaluation import ConfidenceBins

        bins = {name: np.array(values) for name, values in result["confidence_bins"].items()}
        by_first(lambda: draw_run(workdir.path.name, ConfidenceBins(**bins), picture))
    return result
