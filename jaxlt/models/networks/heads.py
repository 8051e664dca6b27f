"""A backbone with a classifier head, and the linear head."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import Linear
from jaxlt.batch.cosine import Cosine
from jaxlt.errors import UsageError
from jaxlt.models.networks.cosine_head import CosineClassifier

# He initialization as PyTorch draws it: an untruncated normal, unlike Flax's `kaiming_normal`.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class LinearClassifier(nn.Module):
    """Affine classifier.

    The kernel starts Kaiming-normal and the bias uniform within 1/sqrt(D), as in the CIFAR
    ResNets of LDAM-DRW (Cao et al., NeurIPS 2019) and its descendants.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 logits."""
        features = jnp.asarray(features, jnp.float32)
        return linear_parameters(self, features.shape[-1], self.num_classes).logits(features)


def linear_parameters(module: nn.Module, width: int, num_classes: int) -> Linear:
    """Makes kernel (width, num_classes) and bias of a module, as `LinearClassifier` says."""

    def bias_init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

    kernel = module.param("kernel", kaiming_normal, (width, num_classes), jnp.float32)
    return Linear(kernel, module.param("bias", bias_init, (num_classes,), jnp.float32))


def _create_classifier(name: str, num_classes: int, cosine_scale: float) -> nn.Module:
    # Without parent=None a network built inside another module would lend its head to that one.
    if name == "linear":
        return LinearClassifier(num_classes, parent=None)
    if name == "cosine":
        return CosineClassifier(num_classes, cosine_scale, parent=None)
    from jaxlt.models.networks import decoupled_heads

    if name == "scaled_linear":
        return decoupled_heads.ScaledLinearClassifier(num_classes, parent=None)
    if name == "nearest_class_mean":
        return decoupled_heads.NearestClassMeanClassifier(num_classes, parent=None)
    raise UsageError(
        f"classifier must be one of linear, cosine, scaled_linear, nearest_class_mean, got {name!r}"
    )


class ImageClassifier(nn.Module, kw_only=True):
    """A backbone with a classifier head; a subclass supplies the backbone as `features`.

    The head's parameters lie under `params["classifier"]`, whichever the backbone.

    Attributes:
        num_classes: Number of logits.
        classifier: As of `create_model`; the constructed module holds the head itself here.
        cosine_scale: Factor on the cosines of a cosine head.
        dtype: Type in which the backbone computes; parameters, batch statistics, features and
            logits are always float32.

    Raises:
        UsageError: `classifier` is a name of no head.
    """

    suits_loops: ClassVar[bool] = False
    """Whether it pays to pass over a few images at a time, in a loop on the device.

    Not with convolutions: XLA's CPU code for them is many times slower in loops. Nor where an image
    is so little work that adding up parameter gradients outweighs it.
    """

    num_classes: int
    classifier: str | nn.Module = "linear"
    cosine_scale: float = 1.0
    dtype: jnp.dtype | type = jnp.float32

    def __post_init__(self):
        # A Flax submodule is named after its field, and fields can be set only before this.
        name = self.classifier
        if isinstance(name, str):
            self.classifier = _create_classifier(name, self.num_classes, self.cosine_scale)
        super().__post_init__()

    @property
    def couples_examples(self) -> bool:
        """Whether an example's training-mode output depends on the rest of its batch.

        Then, as under batch norm whose statistics are not held, a pass over part of a batch is
        another function. Dropout couples too: a mask depends on its place in the batch.
        """
        return False

    @property
    def has_factored_classifier(self) -> bool:
        """Whether `classifier_of` knows the head: whether it is linear or cosine."""
        return isinstance(self.classifier, LinearClassifier | CosineClassifier)

    def classifier_of(self, params: Any) -> Linear | Cosine:
        """Returns the head as a function of features, made of leaves of the parameters.

        Raises:
            ValueError: the head is another one than linear or cosine.
        """
        if isinstance(self.classifier, LinearClassifier):
            return Linear(**params["classifier"])
        if isinstance(self.classifier, CosineClassifier):
            return Cosine(**params["classifier"], scale=self.classifier.scale)
        raise ValueError(
            "classifier must be LinearClassifier or CosineClassifier, got "
            f"{type(self.classifier).__name__}"
        )

    def split(self, params: Any) -> tuple[Any, Any]:
        """Returns (trained, frozen) parameters; nothing is frozen unless a subclass says so."""
        return params, {}

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Computes `(B, D)` float32 features, the head's input.

        Args:
            images: (B, H, W, channels).
            train: whether batch norm takes and updates the batch's statistics.
        """
        raise NotImplementedError

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps normalized `(B, H, W, channels)` images to `(B, num_classes)` float32 logits.

        `train` says whether batch norm, where there is any, uses the batch's own statistics.
        """
        return self.logits_of(self.features(images, train=train))

    def logits_of(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 logits: the head alone."""
        assert isinstance(self.classifier, nn.Module)
        return self.classifier(features)
