"""Data parallelism: the batch spread over all devices of all processes, the state on each."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlt.devices.processes import are_several
from jaxlt.errors import UsageError

DATA = "data"  # name of the mesh's axis
# Smaller leaves are not worth the gathering that each pass would begin with.
_LEAST_DIVIDED = 2**14


def data_mesh() -> Mesh:
    """Returns the mesh of all devices along one axis, those of each process in a row."""
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
    """Returns the sharding of arrays that are spread along an axis, 1 in (K, B, ...) of a chunk."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a run are on the devices of all processes.

    With `shard_parameters` large ones, and what the optimizer keeps of them, are divided among the
    devices, each being put together where a pass needs it (fully sharded data parallelism; ZeRO,
    Rajbhandari et al., SC 2020). Numbers change by rounding alone.
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
        of_leaf = _divided if self.shard_parameters else lambda _, mesh: replicated(mesh)
        return jax.tree.map(lambda leaf: of_leaf(leaf, self.mesh), state)

    def place(self, tree: Any) -> Any:
        """Replicates host arrays, the same in all processes, on every device."""
        return _put(tree, jax.tree.map(lambda _: replicated(self.mesh), tree))

    def place_state(self, state: Any) -> Any:
        """Places a host state, the same in all processes, where `of_state` says."""
        return _put(state, self.of_state(state))

    def spread(self, tree: Any, axis: int) -> Any:
        """Makes arrays of the whole batch, along an axis, of each process's `share` of them."""
        sharding = batch_sharding(self.mesh, axis)
        if not are_several():
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
        )


def _divided(leaf: Any, mesh: Mesh) -> NamedSharding:
    divisible = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    if math.prod(leaf.shape) < _LEAST_DIVIDED or not divisible:
        return replicated(mesh)
    # The largest, and of equal ones the last, which holds channels.
    return batch_sharding(mesh, max(divisible, key=lambda axis: (leaf.shape[axis], axis)))


def _put(tree: Any, shardings: Any) -> Any:
    if not are_several():
        return jax.device_put(tree, shardings)
    from jaxlt.devices.cluster import put

    return jax.tree.map(put, tree, shardings)
