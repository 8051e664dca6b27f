"""Steps over shards of a batch, each with a perturbation of its own."""

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxlt.training.step.train_step import TrainStep


def over_shards(step: TrainStep, mesh: Mesh) -> TrainStep:
    """Maps a step over the shards of a batch, one a device of the mesh.

    With `jaxlt.per_shard` that is m-sharpness (Foret et al., ICLR 2021, section 4.1): each device
    perturbs along the gradient of its own images. Batch norm, mixup and dropout are a shard's own
    too; running statistics are averaged.

    Args:
        step: made with the name of the mesh's axis.
        mesh: of one axis, along which the batch is divided evenly.
    """
    whole, divided = PartitionSpec(), PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(whole, divided, divided),
        out_specs=(whole, whole),
        # A shard's gradient is its own until it is averaged.
        check_vma=False,
    )
