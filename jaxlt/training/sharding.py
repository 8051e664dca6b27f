"""Data parallelism: the batch spread over all devices, the state on each of them."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlt.errors import UsageError


def data_mesh() -> Mesh:
    """Returns the mesh of all devices along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Spreads arrays over the mesh along their first axis.

    Raises:
        UsageError: the batch cannot be divided evenly over the devices.
    """
    for array in jax.tree.leaves(batch):
        if array.shape[0] % mesh.size:
            raise UsageError(
                f"batch_size must be a multiple of the {mesh.size} devices, got {array.shape[0]}"
            )
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
