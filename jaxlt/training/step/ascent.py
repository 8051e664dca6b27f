"""The part of a batch that decides the directions of a method's perturbations."""

import math
from typing import TypeAlias

import jax

from jaxlt.training.step.mixup import MixedBatch

Batch: TypeAlias = MixedBatch | tuple[jax.Array, jax.Array]


def first_images(batch: Batch, share: float) -> Batch:
    """Returns the first `ceil(share * B)` images of a batch, in whose order there is no meaning.

    A class without images among them is not perturbed, nor is a group of such classes.
    """
    # The product of two floats may lie a little above the number that is meant.
    size = math.ceil(round(share * len(batch[1]), 6))
    return jax.tree.map(lambda leaf: leaf[:size] if leaf.ndim else leaf, batch)
