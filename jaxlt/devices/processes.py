"""Several processes that train one run together: joining them, and agreeing among them.

What all must do alike goes through `in_agreement`, what one does for all through `by_first`, which
must not be within one another. A `UsageError` there is one of all processes. Whatever else one of
them raises ends that one, and then the others, who wait for it in vain (`experiments.cluster`).
"""

import re
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlt.errors import Interrupted, UsageError

_Value = TypeVar("_Value")

# Of a message that the processes share; a line is shorter.
_MESSAGE_BYTES = 1024
_SIGNS_OF_LOSS = re.compile(
    r"gloo|nccl|coordination service|barrier|heartbeat|connection (reset|closed|refused)|"
    r"socket closed|deadline.exceeded",
    re.IGNORECASE,
)


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process: int | None = None,
    *,
    join_seconds: int = 300,
    heartbeat_seconds: int = 60,
) -> None:
    """Makes this process one of several, whose devices are then one mesh.

    Comes before anything that uses a device. What is None is found by `jax.distributed` in the
    environment of SLURM, Open MPI, Kubernetes or Cloud TPU.

    Args:
        coordinator: HOST:PORT at which process 0 is reached by all.
        num_processes: how many there are.
        process: number of this one.
        join_seconds: how long to wait for the others; JAX then ends the process itself, by SIGABRT.
        heartbeat_seconds: after so long without a sign of one process JAX ends the others likewise.

    Raises:
        UsageError: the environment does not say what is not given.
    """
    # It would take SIGTERM from us, of which a run makes a checkpoint.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process,
            initialization_timeout=join_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            "processes must be able to join, and all be named outside SLURM, Open MPI and "
            f"Kubernetes: coordinator is {coordinator}, num_processes {num_processes}, process "
            f"{process}: {first}"
        ) from error


def are_several() -> bool:
    """Whether more than one process trains; does not touch a device if none has joined."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, the one that logs and writes."""
    return not are_several() or jax.process_index() == 0


def in_agreement(action: Callable[[], _Value]) -> _Value:
    """Does the same on every process and returns its result when all have done it.

    Raises:
        UsageError: on all processes, if it was one on any of them.
    """
    if not are_several():
        return action()
    message, result = "", None
    try:
        result = action()
    except UsageError as error:
        message = str(error)
    for number, found in enumerate(texts_of_all(message)):
        if found:
            raise on_all_processes(UsageError(f"process {number}: {found}" if number else found))
    return result  # pyright: ignore[reportReturnType] (without a message there is one)


def on_all_processes(error: UsageError) -> UsageError:
    """Marks an error that every process raises at the same point."""
    error.on_all_processes = True
    return error


def by_first(action: Callable[[], object]) -> None:
    """Does something on process 0 alone; all go on when it is done.

    Raises:
        UsageError: on all processes, if it was one there.
    """
    in_agreement(action if is_first() else lambda: None)


def as_first_says(number: int) -> int:
    """Returns process 0's number, or truth, on all."""
    if not are_several():
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def is_loss_of_a_process(error: BaseException) -> bool:
    """Whether an exception is what a collective operation ends with when a process has died."""
    ours = isinstance(error, (UsageError, Interrupted))
    return are_several() and not ours and _SIGNS_OF_LOSS.search(str(error)) is not None


def rows_of_all(rows: np.ndarray) -> np.ndarray:
    """Joins what each process has of an array along its first axis."""
    return multihost_utils.process_allgather(rows, tiled=True) if are_several() else rows


def texts_of_all(text: str) -> list[str]:
    """Returns what each process says, in their order; long texts are cut."""
    if not are_several():
        return [text]
    encoded = text.encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(encoded.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    gathered = multihost_utils.process_allgather(padded)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in gathered]
