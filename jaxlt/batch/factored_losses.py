"""The losses of a batch by features and classifier, which lets the methods skip work."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import (
    AnyLabels,
    ClassLosses,
    Labels,
    Logits,
    Losses,
    LossFn,
    at_least_32_bits,
    check_shape,
    class_losses,
)
from jaxlt.batch.classifiers import Linear
from jaxlt.batch.cosine import Cosine
from jaxlt.batch.passes import Blocks, Passes


@dataclasses.dataclass(frozen=True)
class FactoredLosses:
    """A `class_losses_fn` that lets the methods skip work.

    Every method takes it in place of a plain function from params to `ClassLosses`. `cc_sam` then
    perturbs a classifier in closed form, at the cost of SGD for any number of classes. With
    `independent`, `imb_sam`, `sse_sam` and `cc_sam` evaluate each group of classes on its own
    images alone; on an explicitly sharded mesh, where none can be picked out, on the whole batch.

    Attributes:
        features_fn: from params and images to features, for any number of images; with `has_aux`
            to a pair of them and anything else, which `jaxlt.value_and_grad` returns.
        classifier_fn: from params to a `Linear` or `Cosine`. The closed form needs leaves of params
            as they are, which `features_fn` does not read; any others are perturbed class by class.
        loss_fn: from logits and labels to losses, each of its own row alone.
        images: pytree of arrays (B, ...), whatever `features_fn` takes.
        labels: `(B,)` classes. A label outside [0, C), such as -1, marks padding.
        num_classes: C.
        independent: whether an image's features depend on that image alone. Dropout breaks this,
            and so does batch norm unless its statistics are held fixed.
        passes: how methods pass over part of a batch. None makes those with one group or two take
            all of it, which can be faster where the network is made of convolutions.
        has_aux: whether `features_fn` returns something beside, such as new batch statistics.

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

    features_fn: Callable[[Any, Any], Any]
    classifier_fn: Callable[[Any], Linear | Cosine]
    loss_fn: LossFn
    images: Any
    labels: Labels
    num_classes: int
    independent: bool = False
    passes: Passes | None = dataclasses.field(default_factory=Blocks)
    has_aux: bool = False

    def __post_init__(self):
        labels = jnp.shape(self.labels), jnp.result_type(self.labels)
        if len(labels[0]) != 1 or not jnp.issubdtype(labels[1], jnp.integer):
            wanted = "be integers of shape (B,), and shares go to jaxlt.class_losses"
            raise ValueError(f"labels must {wanted}, got {labels[1]} of shape {labels[0]}")
        for images in jax.tree.leaves(self.images):
            rows = labels[0] + jnp.shape(images)[1:]
            check_shape("images must, as labels, have", images, rows)

    @property
    def in_parts(self) -> bool:
        """Whether a pass may take part of the images, which an explicit sharding forbids."""
        arrays = jax.tree.leaves((self.images, self.labels))
        return self.independent and not any(any(jax.typeof(x).sharding.spec) for x in arrays)

    def __call__(self, params: Any) -> ClassLosses:
        """Returns the losses of the batch, summed by class."""
        losses = self.losses(params, self.images, self.labels)
        return class_losses(losses, self.labels, self.num_classes)

    def losses(self, params: Any, images: Any, labels: AnyLabels) -> Losses:
        """Returns the loss of each image, of any number of them; see `FactoredLosses`."""
        features, _ = self.features_and_aux(params, images)
        return self.loss(self.logits(self.classifier_fn(params), features, labels), labels)

    def features_and_aux(self, params: Any, images: Any) -> tuple[Float[Array, "..."], Any]:
        """Returns the features of images, and None or what is beside them."""
        result = self.features_fn(params, images)
        return result if self.has_aux else (result, None)

    def logits(self, classifier: Linear | Cosine, features: Array, labels: AnyLabels) -> Logits:
        """Returns the logits of each image; see `FactoredLosses`."""
        (rows,), shape = jnp.shape(labels), jnp.shape(features)
        if len(shape) != 2 or shape[0] != rows:
            raise ValueError(f"features_fn must return shape ({rows}, D), got {shape}")
        kernel = shape[1], self.num_classes
        for leaf, wanted in zip(jax.tree.leaves(classifier), (kernel, kernel[1:]), strict=False):
            check_shape("classifier_fn must return a leaf of", leaf, wanted)
        return classifier.logits(features)

    def loss(self, logits: Logits, labels: AnyLabels) -> Losses:
        """Returns the loss of each row in at least 32 bits; see `FactoredLosses`."""
        losses = at_least_32_bits(self.loss_fn(logits, jnp.asarray(labels)))
        check_shape("loss_fn must return a loss a row, of", losses, jnp.shape(labels))
        return losses
