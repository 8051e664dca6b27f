"""Several processes as one: joining them, what they tell each other, arrays that span them."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from jaxlt.devices.processes import are_several, on_all_processes
from jaxlt.devices.sharding import Layout, replicated
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


def done_by_all(action: Callable[[], _Value]) -> _Value:
    """Does the same on every process, see `in_agreement`."""
    message, result = "", None
    try:
        result = action()
    except UsageError as error:
        message = str(error)
    for number, found in enumerate(texts_of_all(message)):
        if found:
            raise on_all_processes(UsageError(f"process {number}: {found}" if number else found))
    return result  # pyright: ignore[reportReturnType] (without a message there is one)


def texts_of_all(text: str) -> list[str]:
    """Returns what each process says, in their order; long texts are cut."""
    if not are_several():
        return [text]
    encoded = text.encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(encoded.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    gathered = multihost_utils.process_allgather(padded)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in gathered]


class StopVotes:
    """Agreement of the processes to stop for a signal that `own` says one of them has received.

    Votes are counted by the devices, and read when the next are cast: by then the devices have done
    so, and nobody waits.
    """

    def __init__(self, own: Callable[[], int]):
        self._own, self._layout = own, Layout()
        self._cast: jax.Array | None = None
        self._largest = jax.jit(jnp.max, out_shardings=replicated(self._layout.mesh))

    def __call__(self, *, wait: bool = False) -> int:
        """Votes; returns the signal to stop for, 0 to go on; of these votes if it is to wait."""
        mine = np.full(jax.local_device_count(), self._own(), np.int32)
        before, self._cast = self._cast, self._largest(self._layout.spread(mine, axis=0))
        if wait:
            before, self._cast = self._cast, None
        return 0 if before is None else int(before)


def is_loss_of_a_process(error: BaseException) -> bool:
    """Whether an exception is what a collective operation ends with when a process has died."""
    ours = isinstance(error, (UsageError, Interrupted))
    return are_several() and not ours and _SIGNS_OF_LOSS.search(str(error)) is not None


def local(tree: Any) -> Any:
    """Returns arrays, each whole, with which this process can compute by itself."""
    return jax.tree.map(lambda leaf: jnp.asarray(whole(leaf)), tree)


def on_host(state: Any) -> Any:
    """Returns a state in the host's memory, of which no device keeps a copy."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), state)


def whole(leaf: jax.Array) -> np.ndarray | jax.Array:
    """Returns an array of any sharding on the host; called by all processes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(whole(jax.random.key_data(leaf))))
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Lays an array that all processes have, or that spans their devices, out over them."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf if leaf.sharding == sharding else _moved(sharding)(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), sharding))
    # Not device_put, by which the processes would compare what they have.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@functools.cache
def _moved(sharding: NamedSharding) -> Any:
    # Not device_put, which does not move between processes.
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)
