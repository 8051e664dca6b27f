"""Classifiers of Kang et al., "Decoupling representation and classifier", ICLR 2020.

They map `(B, D)` features to `(B, num_classes)` float32 logits.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.batch.cosine import unit_norm
from jaxlt.models.networks.heads import linear_parameters


class ScaledLinearClassifier(nn.Module):
    """LWS: an affine classifier with a factor for each class's logit.

    In the paper kernel and bias come from a trained linear classifier and are held, and the scale
    alone is learned, from 1. Kernel and bias start as those of `LinearClassifier`.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns the logits."""
        features = jnp.asarray(features, jnp.float32)
        linear = linear_parameters(self, features.shape[-1], self.num_classes)
        scale = self.param("scale", nn.initializers.ones, (self.num_classes,), jnp.float32)
        return scale * linear.logits(features)


class NearestClassMeanClassifier(nn.Module):
    """NCM: nearest class mean, with centered features of unit norm.

    Logit c is `-||u - center_c||^2`, where u is `features - mean` scaled to unit norm, or zero.
    Mean (D,) and centers (C, D) start at zero. They are computed from the training images (see
    `jaxlt.training.step.decoupling.nearest_class_mean`), never learned.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns the logits."""
        features = jnp.asarray(features, jnp.float32)
        width, zeros = features.shape[-1], nn.initializers.zeros
        mean = self.param("mean", zeros, (width,), jnp.float32)
        centers = self.param("centers", zeros, (self.num_classes, width), jnp.float32)
        unit = unit_norm(features - mean, axis=-1)
        # Expanded, as (B, C, D) differences would not fit; the default precision of a GPU's
        # products would show where centers lie close together.
        products = jnp.matmul(unit, centers.T, precision="highest")
        squares = jnp.square(unit).sum(-1, keepdims=True) + jnp.square(centers).sum(-1)
        return 2 * products - squares
