"""Data parallelism: the batch spread over all devices, the state on each of them."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlt.errors import UsageError


def data_mesh() -> Mesh:
    """Returns the mesh of all devices along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a chunk's arrays (K, B, ...): examples spread over the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raises UsageError for a batch that cannot be divided evenly over the devices."""
    if batch_size % mesh.size:
        raise UsageError(
            f"batch_size must be a multiple of the {mesh.size} devices, got {batch_size}"
        )
