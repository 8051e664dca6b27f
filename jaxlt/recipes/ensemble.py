"""Several runs of one recipe as one program: which of them train together, and when."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlt.data import Pipeline
from jaxlt.devices.processes import as_first_says
from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_alone
from jaxlt.recipes.built_stage import BuiltStage, StepForm
from jaxlt.runs.workdir import Workdir
from jaxlt.training import Job, Program, TrainState
from jaxlt.training.loop.together import at_one_step, bytes_needed, device_memory, train_together
from jaxlt.training.step import ensemble
from jaxlt.training.step.train_step import TrainStep

_logger = logging.getLogger(__name__)

# The rest is for evaluation and for the copies that checkpoints are made of.
_SHARE_OF_MEMORY = 0.75


def most_together(built: BuiltRecipe, runs: Sequence[tuple[Member, Workdir]]) -> int:
    """Returns how many unfinished runs are to train together, and says so if that is not all."""
    if not _together(built):
        return 1
    members = [member for member, workdir in runs if workdir.read_result() is None]
    # In units that int32 holds; machines may differ, and all must come to the same groups.
    limit = as_first_says(device_memory() >> 10) * 2**10 * _SHARE_OF_MEMORY
    size = len(members)
    while size > 1 and (needed := bytes_needed(job_of(built, members[:size]))) > limit:
        size = min(size - 1, math.floor(size * limit / needed))
    size = max(1, size)
    if size < len(members):
        numbers = len(members), size, limit / 1e9
        _logger.info("of %d runs, %d at a time fit in %.2f GB of memory", *numbers)
    return size


def _together(built: BuiltRecipe) -> bool:
    if built.execution.ensemble == "auto":
        # One convolution a member, XLA's form of a convolution under vmap, is slow on CPU.
        return jax.default_backend() != "cpu" or built.stages[0].model.suits_loops
    return built.execution.ensemble == "together"


def train_in_groups(
    built: BuiltRecipe, runs: Sequence[tuple[Member, Workdir]], largest: int, label: str
) -> None:
    """Trains the unfinished runs, so many together, see `train_members`."""
    while waiting := [run for run in runs if run[1].read_result() is None]:
        # Runs at different steps cannot share a program, so those at other steps come later.
        chosen = at_one_step([workdir for _, workdir in waiting])[:largest]
        group = [waiting[index] for index in chosen]
        if len(group) == 1:
            train_alone(built, *group[0], label)
            continue
        names = [f"{label} {member.name}" for member, _ in group]
        group_label = f"{label}, {len(group)} runs"
        built.describe(group_label, f"{names[0]} to {names[-1]}")
        train_together(
            job_of(built, [member for member, _ in group]),
            [workdir for _, workdir in group],
            keep_checkpoints=built.execution.keep_checkpoints,
            label=group_label,
            labels=names,
        )


def job_of(built: BuiltRecipe, members: Sequence[Member]) -> Job:
    """Prepares the training of several runs for `train_together`."""

    def program_of(number: int) -> tuple[Program, Pipeline]:
        pipeline = ensemble.EnsemblePipeline([built.pipeline(number, one.seed) for one in members])
        radii = [None if number else one.rho for one in members]
        return _program(built.stages[number], radii, pipeline), pipeline

    state = ensemble.stack([built.stages[0].initial_state(one.seed) for one in members])
    return built.job_from(state, program_of)


def _program(
    stage: BuiltStage, radii: list[float | None], pipeline: ensemble.EnsemblePipeline
) -> Program:
    """Returns the compiled steps of several runs, each with the stage's radius or its own."""

    def steps(form: StepForm) -> TrainStep:
        if len(set(radii)) == 1:
            return ensemble.over_members(stage.step(form, radii[0]))

        def step_of_member(state: TrainState, images: jax.Array, labels: jax.Array, rho: Any):
            return stage.step(form, rho)(state, images, labels)

        own = getattr(stage.training.method, "rho", 0.0)
        values = jnp.array([own if rho is None else rho for rho in radii])
        mapped = ensemble.over_members(step_of_member)
        return lambda state, images, labels: mapped(state, images, labels, values)

    measure = ensemble.measured_over_members(stage.measure)
    key = ("together", *radii)
    return stage.compiled(key, pipeline, steps, measure, members=len(radii))
