"""Classifier heads, and the module that puts one on a backbone."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.batch.classifiers import Cosine, Linear, unit_norm
from jaxlt.errors import UsageError

# He initialisation as PyTorch draws it: an untruncated normal, unlike Flax's `kaiming_normal`.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _unit_columns(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    return unit_norm(jax.random.uniform(key, shape, dtype, -1.0, 1.0), axis=0)


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
        return _linear_parameters(self, features.shape[-1], self.num_classes).logits(features)


def _linear_parameters(module: nn.Module, width: int, num_classes: int) -> Linear:
    def bias_init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

    kernel = module.param("kernel", kaiming_normal, (width, num_classes), jnp.float32)
    return Linear(kernel, module.param("bias", bias_init, (num_classes,), jnp.float32))


class CosineClassifier(nn.Module):
    """Cosine classifier: logit j is the cosine of the features and column j of the kernel.

    It has no bias. Features that are all zero give zero logits and zero gradients. The kernel
    starts uniform with unit columns, as the NormedLinear of LDAM-DRW. `scale` is a factor on the
    cosines, such as LIFT's 25; 1 for losses with a scale of their own (30 for LDAM).
    """

    num_classes: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 cosines times the scale."""
        features = jnp.asarray(features, jnp.float32)
        kernel = self.param(
            "kernel", _unit_columns, (features.shape[-1], self.num_classes), jnp.float32
        )
        return Cosine(kernel, self.scale).logits(features)


class ScaledLinearClassifier(nn.Module):
    """Affine classifier with a factor for each class's logit: LWS of Kang et al. (ICLR 2020).

    There kernel and bias come from a trained linear classifier and are held, and the scale alone is
    learned, from 1. Kernel and bias start as those of `LinearClassifier`.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 logits."""
        features = jnp.asarray(features, jnp.float32)
        linear = _linear_parameters(self, features.shape[-1], self.num_classes)
        scale = self.param("scale", nn.initializers.ones, (self.num_classes,), jnp.float32)
        return scale * linear.logits(features)


class NearestClassMeanClassifier(nn.Module):
    """Nearest class mean: NCM of Kang et al. (ICLR 2020), with centred features of unit norm.

    Logit c is `-||u - centre_c||^2`, where u is `features - mean` scaled to unit norm, or zero.
    Mean (D,) and centres (C, D) start at zero. They are computed from the training images (see
    `jaxlt.training.step.decoupling.nearest_class_mean`), never learned.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 logits."""
        features = jnp.asarray(features, jnp.float32)
        width, zeros = features.shape[-1], nn.initializers.zeros
        mean = self.param("mean", zeros, (width,), jnp.float32)
        centres = self.param("centres", zeros, (self.num_classes, width), jnp.float32)
        unit = unit_norm(features - mean, axis=-1)
        # Expanded, as (B, C, D) differences would not fit; the default precision of a GPU's
        # products would show where centres lie close together.
        products = jnp.matmul(unit, centres.T, precision="highest")
        squares = jnp.square(unit).sum(-1, keepdims=True) + jnp.square(centres).sum(-1)
        return 2 * products - squares


_CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "linear": LinearClassifier,
    "cosine": CosineClassifier,
    "scaled_linear": ScaledLinearClassifier,
    "nearest_class_mean": NearestClassMeanClassifier,
}


def _create_classifier(name: str, num_classes: int, cosine_scale: float) -> nn.Module:
    if name not in _CLASSIFIERS:
        raise UsageError(f"classifier must be one of {', '.join(_CLASSIFIERS)}, got {name!r}")
    fields = {"scale": cosine_scale} if name == "cosine" else {}
    # Without parent=None a network built inside another module would lend its head to that one.
    return _CLASSIFIERS[name](num_classes, **fields, parent=None)


class ImageClassifier(nn.Module, kw_only=True):
    """A backbone with a classifier head; a subclass supplies the backbone as `features`.

    The head's parameters lie under `params["classifier"]`, whichever the backbone.

    Attributes:
        num_classes: Number of logits.
        classifier: "linear", "cosine", "scaled_linear" or "nearest_class_mean"; the constructed
            module holds the head itself here.
        cosine_scale: Factor on the cosines of a cosine head.
        dtype: Type in which the backbone computes. Parameters, batch statistics, features and
            logits are always float32, so bfloat16 gives mixed precision.

    Raises:
        UsageError: `classifier` is a name of no head.
    """

    num_classes: int
    classifier: str | nn.Module = "linear"
    cosine_scale: float = 1.0
    dtype: jnp.dtype | type = jnp.float32

    def __post_init__(self):
        # A Flax submodule is named after its field, and fields can be set only before this.
        if isinstance(self.classifier, str):
            self.classifier = _create_classifier(
                self.classifier, self.num_classes, self.cosine_scale
            )
        super().__post_init__()

    @property
    def couples_examples(self) -> bool:
        """Whether an example's training-mode output depends on the rest of its batch.

        Where it does, as under batch norm, a pass over part of a batch is another function than
        the pass over all of it, unless batch norm's statistics are held. Dropout couples too: an
        image's mask depends on its place in the batch.
        """
        return False

    @property
    def suits_loops(self) -> bool:
        """Whether it pays to pass over a few images at a time, in a loop on the device.

        Not with convolutions: XLA's CPU code for them is many times slower in loops. Nor where an
        image is so little work that adding up parameter gradients outweighs it.
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
        """Maps `(B, H, W, channels)` images to `(B, D)` float32 features, the head's input."""
        raise NotImplementedError

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, num_classes)` float32 logits.

        Args:
            images: Normalised images.
            train: Whether batch norm, where there is any, uses the batch's own statistics.
        """
        return self.logits_of(self.features(images, train=train))

    def logits_of(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 logits: the head alone."""
        assert isinstance(self.classifier, nn.Module)
        return self.classifier(features)
