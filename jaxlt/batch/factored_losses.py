"""Losses of a batch that keep the network's features, its classifier and its images apart."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from jaxlt.batch.class_losses import ClassLosses, class_losses
from jaxlt.batch.classifiers import Cosine, Linear
from jaxlt.batch.precision import at_least_32_bits


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Passes over part of a batch that loop over blocks of images.

    Choose this where the network is made of matrix products. XLA runs loops of convolutions slowly
    on a CPU.

    Attributes:
        sizes: images in a block, descending. What one size leaves over goes to the next smaller.

    Raises:
        ValueError: `sizes` is empty, not positive or not descending.

    Example:
        >>> import jaxlt
        >>> jaxlt.Blocks((32, 8, 1)).sizes  # 75 images take blocks of 32, 32, 8, 1, 1 and 1
        (32, 8, 1)
    """

    sizes: tuple[int, ...] = (8, 2)

    def __post_init__(self):
        """Checks the sizes."""
        descending = all(a > b for a, b in itertools.pairwise((*self.sizes, 0)))
        if not (self.sizes and descending):
            raise ValueError(f"Blocks.sizes must be positive and descending, got {self.sizes}")


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Passes over part of a batch that take a fixed number of its images, without a loop.

    It serves methods with one group of classes, such as ImbSAM's tail. Methods with two groups then
    pass over the whole batch, and `cc_sam` takes `Blocks`.

    Attributes:
        images: how many; a constant of the compiled program. Count the labels on the host to make
            sure that the group has no more: if it has, the result is NaN.

    Raises:
        ValueError: `images` is not positive.

    Example:
        >>> import jaxlt
        >>> jaxlt.Capacity(16)
        Capacity(images=16)
    """

    images: int

    def __post_init__(self):
        """Checks the number."""
        if self.images < 1:
            raise ValueError(f"Capacity.images must be at least 1, got {self.images}")


Passes: TypeAlias = Blocks | Capacity


@dataclasses.dataclass(frozen=True)
class FactoredLosses:
    """A `class_losses_fn` that lets the methods skip work.

    Every method takes it in place of a plain function from params to `ClassLosses`. `cc_sam` then
    perturbs a classifier in closed form, at the cost of SGD for any number of classes. With
    `independent`, `imb_sam`, `sse_sam` and `cc_sam` evaluate each group of classes on its own
    images alone.

    On an explicitly sharded mesh use a plain function: this one sorts and compares images.

    Attributes:
        features_fn: from params and images to features (b, D), for any number of images.
        classifier_fn: from params to a `Linear` or `Cosine` of leaves of params, which
            `features_fn` does not read.
        loss_fn: from logits (b, C) and labels (b,) to losses (b,), each of its own row alone.
        images: pytree of arrays (B, ...), whatever `features_fn` takes.
        labels: (B,) integer classes. A label outside [0, C), such as -1, marks padding.
        num_classes: C.
        independent: whether an image's features depend on that image alone. Dropout breaks this,
            and so does batch norm unless its statistics are held fixed.
        passes: how methods pass over part of a batch. None makes those with one group or two take
            all of it, which can be faster where the network is made of convolutions.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> losses_fn = jaxlt.FactoredLosses(
        ...     features_fn=lambda params, images: images,  # a network without its last layer
        ...     classifier_fn=lambda params: jaxlt.Linear(params["kernel"], params["bias"]),
        ...     loss_fn=jaxlt.losses.cross_entropy,
        ...     images=jnp.ones((4, 2)), labels=jnp.array([0, 0, 0, 1]), num_classes=3,
        ... )
        >>> print(losses_fn({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}).counts)
        [3. 1. 0.]
    """

    features_fn: Callable[[Any, Any], jax.Array]
    classifier_fn: Callable[[Any], Linear | Cosine]
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array]
    images: Any
    labels: jax.Array
    num_classes: int
    independent: bool = False
    passes: Passes | None = Blocks()

    def __call__(self, params: Any) -> ClassLosses:
        """Returns the losses of the batch, summed by class."""
        losses = self.losses(params, self.images, self.labels)
        return class_losses(losses, self.labels, self.num_classes)

    def losses(self, params: Any, images: Any, labels: jax.Array) -> jax.Array:
        """Returns the loss of each image, (b,).

        Args:
            params: what `features_fn` and `classifier_fn` take.
            images: pytree of arrays (b, ...).
            labels: (b,) integer classes.
        """
        logits = self.classifier_fn(params).logits(self.features_fn(params, images))
        return self.loss(logits, labels)

    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns the loss of each row of logits, (b,), in at least 32 bits.

        Args:
            logits: (b, C).
            labels: (b,) integer classes.
        """
        return at_least_32_bits(self.loss_fn(logits, labels))
