"""Members that train together, each in a directory of its own, as many as fit in memory."""

import contextlib
import os
from collections.abc import Sequence

import jax

from jaxlt.files.directory import disk_errors_explained
from jaxlt.runs.run import Run
from jaxlt.runs.workdir import Workdir
from jaxlt.training.loop.job import Job
from jaxlt.training.loop.program import first_step
from jaxlt.training.loop.train import Session
from jaxlt.training.step.ensemble import stack, unstack
from jaxlt.training.step.state import TrainState


def train_together(
    job: Job,
    workdirs: Sequence[Workdir],
    *,
    keep_checkpoints: int = 2,
    label: str = "",
    labels: Sequence[str],
) -> None:
    """Trains members to the end, from the newest step of which all have a whole checkpoint.

    Each has its own directory, as if it had been trained alone, and `train` says what holds for it,
    and what is raised. Its `seconds` are its share of the time.

    Args:
        job: what to train, with a leading axis of members in its state and batches.
        workdirs: of each member.
        keep_checkpoints: as for `train`, but at least 2: a kill may leave some members one behind.
        label: name of all together in progress lines.
        labels: name of each member in messages.
    """
    with disk_errors_explained(workdirs[0].path.parent), contextlib.ExitStack() as closing:
        keep = max(2, keep_checkpoints)
        runs = [
            closing.enter_context(Run(workdir, keep, name, job.skip_nonfinite))
            for workdir, name in zip(workdirs, labels, strict=True)
        ]
        states = _restore_at_one_step(runs, job)
        Session(job, runs, label, is_ensemble=True).run(stack(states))


def _restore_at_one_step(runs: Sequence[Run], job: Job) -> list[TrainState]:
    place = job.program.place
    initial, until = unstack(place(job.initial_state)), None
    while True:
        states = [
            run.restore(state, lambda step: place(job.template_at(step)), until)
            for run, state in zip(runs, initial, strict=True)
        ]
        steps = {int(state.step) for state in states}
        if len(steps) == 1:
            return states
        until = min(steps)


def at_one_step(workdirs: Sequence[Workdir]) -> list[int]:
    """Returns which of some runs can go on together first: those furthest behind.

    A run can go on from either of its last two states, of which the initial one may be one: a kill
    leaves members at most one checkpoint apart.
    """
    saved = [[0, *workdir.saved_steps()][-2:] for workdir in workdirs]
    first = min(steps[-1] for steps in saved)
    return [index for index, steps in enumerate(saved) if first in steps]


def device_memory() -> int:
    """Returns the bytes that programs may take on each device.

    On CPU it is the machine's whole memory, not what is free: groups of members depend on it, and
    a resumed run must come to the same groups.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def bytes_needed(job: Job) -> int:
    """Returns the memory that the first steps of a job take on each device.

    Nothing is run; what is compiled for it serves the job.
    """
    steps = job.placed[0].steps
    program, state = steps.program, job.program.place(job.initial_state)
    stop = min(steps.eval_steps, steps.num_steps)
    _, last, size = next(program.cut(0, stop, steps.measure_every))
    chunk = next(steps.pipeline.chunks(0, last, size))
    needed = bytes_of(program.compiled(state, 0, program.spread(chunk)))
    if 0 < steps.measure_every < steps.num_steps:
        first = program.spread(first_step(chunk))
        needed = max(needed, bytes_of(program.compiled_measure(state, first)))
    return needed


def bytes_of(compiled: jax.stages.Compiled) -> int:
    """Returns the memory that a compiled program takes on each device, with all it is handed."""
    memory = compiled.memory_analysis()
    if memory is None:
        raise NotImplementedError(f"{jax.default_backend()} reports no memory of programs")
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
