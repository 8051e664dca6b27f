"""Data parallelism: the batch spread over all devices of all processes, the state on each."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlt.devices.processes import are_several
from jaxlt.errors import UsageError

# Name of the mesh's axis.
DATA = "data"
# Smaller leaves are not worth the gathering that each pass would begin with.
_LEAST_DIVIDED = 2**14


def data_mesh() -> Mesh:
    """Returns the mesh of all devices along one axis, `data`, those of each process in a row.

    Raises:
        UsageError: processes have different numbers of devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(devices) != jax.process_count() * jax.local_device_count():
        raise UsageError(
            f"processes must have as many devices each, one of the {jax.process_count()} has "
            f"{jax.local_device_count()} of the {len(devices)}"
        )
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 1) -> NamedSharding:
    """Returns the sharding of arrays whose examples, spread over the mesh, are along an axis.

    In the arrays (K, B, ...) of a chunk it is axis 1.
    """
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a run are on the devices of all processes.

    Attributes:
        shard_parameters: whether large parameters, and what the optimizer keeps of them, are
            divided among the devices, each being put together where a pass needs it (fully sharded
            data parallelism; ZeRO, Rajbhandari et al., SC 2020). Numbers change by rounding alone.
    """

    shard_parameters: bool = False

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices."""
        return data_mesh()

    @property
    def share(self) -> tuple[int, int]:
        """Which part of a batch this process reads: (its number, number of processes)."""
        return (jax.process_index(), jax.process_count()) if are_several() else (0, 1)

    def check_divisible(self, batch_size: int) -> None:
        """Raises UsageError for a batch that cannot be divided evenly over the devices."""
        if batch_size % self.mesh.size:
            raise UsageError(
                f"batch_size must be a multiple of the {self.mesh.size} devices, got {batch_size}"
            )

    def of_state(self, state: Any) -> Any:
        """Returns the sharding of each leaf of a state."""
        return jax.tree.map(self._of_leaf, state)

    def _of_leaf(self, leaf: Any) -> NamedSharding:
        if self.shard_parameters and math.prod(leaf.shape) >= _LEAST_DIVIDED:
            # The largest first, and of equal ones the last, which holds channels.
            axes = sorted(range(leaf.ndim), key=lambda axis: (leaf.shape[axis], axis))
            for axis in reversed(axes):
                if leaf.shape[axis] % self.mesh.size == 0:
                    return batch_sharding(self.mesh, axis)
        return replicated(self.mesh)

    def place(self, tree: Any) -> Any:
        """Puts arrays that all processes have on all devices, whole."""
        return jax.tree.map(lambda leaf: _put(leaf, replicated(self.mesh)), tree)

    def place_state(self, state: Any) -> Any:
        """Puts a state that all processes have where `of_state` says."""
        return jax.tree.map(_put, state, self.of_state(state))

    def spread(self, tree: Any, axis: int) -> Any:
        """Makes arrays of the whole batch of what each process has of it.

        Args:
            tree: arrays whose examples are along an axis, of each process its `share`.
            axis: that axis.
        """
        sharding = batch_sharding(self.mesh, axis)
        if not are_several():
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
        )


def local(tree: Any) -> Any:
    """Returns arrays, each whole, with which this process can compute by itself."""
    if not are_several():
        return tree
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


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if not are_several():
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf if leaf.sharding == sharding else _moved(sharding)(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    # Not device_put, by which the processes would compare what they have.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@functools.cache
def _moved(sharding: NamedSharding) -> Any:
    """Returns a function that lays an array of all processes' devices out anew."""
    # Not device_put, which does not move between processes.
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)
