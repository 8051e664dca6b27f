"""Losses of a batch that know the network's features, its classifier and its images apart."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import ClassLosses, class_losses
from jaxlt.batch.classifiers import Cosine, Linear


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Passes over part of a batch go through loops of blocks, as many as there are images for.

    The right choice where the network is made of matrix products. In convolutional networks XLA
    runs loops slowly on a CPU.

    Attributes:
        sizes: images a block, descending; what a size leaves over goes to the next smaller one.

    Raises:
        ValueError: there is no size, or they are not positive and descending.
    """

    sizes: tuple[int, ...] = (8, 2)

    def __post_init__(self):
        """Checks the sizes."""
        descending = all(a > b for a, b in itertools.pairwise((*self.sizes, 0)))
        if not (self.sizes and descending):
            raise ValueError(f"sizes of Blocks must be positive and descending, got {self.sizes}")


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Passes over part of a batch take a fixed number of its images, without a loop.

    Serves methods with one group of classes, such as ImbSAM's tail. Those with two pass over the
    whole batch, and `cc_sam` takes `Blocks`.

    Attributes:
        images: how many; a constant of the compiled program. The caller sees to it that the group
            has no more, by counting the labels on the host: where it has, the result is NaN.

    Raises:
        ValueError: it is not positive.
    """

    images: int

    def __post_init__(self):
        """Checks the number."""
        if self.images < 1:
            raise ValueError(f"images of Capacity must be at least 1, got {self.images}")


Passes: TypeAlias = Blocks | Capacity
_BLOCKS = Blocks()


@dataclasses.dataclass(frozen=True)
class FactoredLosses:
    """A `class_losses_fn` that lets the methods skip work.

    It is what a plain function from params to `ClassLosses` is, for every method. `cc_sam` that
    perturbs the classifier alone takes its closed form: the cost of SGD for any number of
    classes. With `independent`, `imb_sam`, `sse_sam` and `cc_sam` evaluate each group of classes on
    its own images alone.

    On an explicitly sharded mesh only a plain function works: here images are sorted and compared.

    Attributes:
        features_fn: from params and images to features (b, D), for any number of images.
        classifier_fn: from params to a `Linear` or `Cosine` of leaves of params, which
            `features_fn` does not read.
        loss_fn: from logits (b, C) and labels (b,) to losses (b,), each of its own row alone.
        images: pytree of arrays (B, ...), whatever `features_fn` takes.
        labels: (B,) integer classes; one outside [0, C), such as -1, marks padding.
        num_classes: C.
        independent: whether an image's features depend on that image alone: not with batch norm,
            unless its statistics are held fixed, nor with dropout.
        passes: how methods with one group or two pass over part of a batch; None if they are to
            take all of it, which can be faster where the network is made of convolutions.
    """

    features_fn: Callable[[Any, Any], jax.Array]
    classifier_fn: Callable[[Any], Linear | Cosine]
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array]
    images: Any
    labels: jax.Array
    num_classes: int
    independent: bool = False
    passes: Passes | None = _BLOCKS

    def __call__(self, params: Any) -> ClassLosses:
        """Returns the losses of the batch, summed by class."""
        losses = self.losses(params, self.images, self.labels)
        return class_losses(losses, self.labels, self.num_classes)

    def losses(self, params: Any, images: Any, labels: jax.Array) -> jax.Array:
        """Returns the loss of each image, (b,)."""
        logits = self.classifier_fn(params).logits(self.features_fn(params, images))
        return self.loss(logits, labels)

    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns the loss of each row of logits, (b,), in at least 32 bits."""
        losses = self.loss_fn(logits, labels)
        return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
