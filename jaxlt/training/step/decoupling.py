"""What second stages make of a trained network (Kang et al., ICLR 2020)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Integer

from jaxlt.models.clip.head_init import members_by_class, unit_rows
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.state import TrainState


def next_stage(
    state: TrainState,
    params: Any,
    transformation: optax.GradientTransformation,
    spectral_norm: SpectralNorm | None = None,
) -> TrainState:
    """Returns the state in which a further stage begins: a new optimizer on given parameters.

    Args:
        state: at the end of the stage before.
        params: to go on from, like the state's.
        transformation: of the new stage.
        spectral_norm: of the new stage.

    Example:
        >>> import optax, jaxlt.models, jaxlt.training as training
        >>> model = jaxlt.models.MLP(num_classes=10)
        >>> state = training.make_state_fn(model, optax.sgd(0.1), (8, 8, 1))(0)
        >>> int(training.next_stage(state, state.params, optax.adam(1e-3)).step)
        0
    """
    return dataclasses.replace(
        state,
        params=params,
        singular_vectors=spectral_norm.init(params) if spectral_norm else {},
        opt_state=transformation.init(params),
        loss_sum=jnp.zeros_like(state.loss_sum),
    )


def tau_normalized(classifier: dict[str, Any], tau: float) -> dict[str, Any]:
    """tau-normalization: column W_j of the kernel becomes `W_j / ||W_j||^tau`, the bias zero.

    A column that is zero stays zero.

    Args:
        classifier: `params["classifier"]` of a linear or a cosine head, with kernel (D, C).
        tau: 0 leaves the kernel as it is and 1 makes its columns unit vectors.

    Returns:
        Parameters of the same head.
    """
    kernel = classifier["kernel"]
    norms = jnp.linalg.norm(kernel, axis=0)
    normalized = {"kernel": kernel / jnp.where(norms > 0, norms, 1) ** tau}
    if "bias" in classifier:
        normalized["bias"] = jnp.zeros_like(classifier["bias"])
    return normalized


def with_unit_scale(classifier: dict[str, Any]) -> dict[str, Any]:
    """Learnable weight scaling (LWS), its start: a scale of 1 for each class is added.

    Args:
        classifier: `params["classifier"]` of a linear head.

    Returns:
        Parameters of a "scaled_linear" head with the same logits.
    """
    return {**classifier, "scale": jnp.ones_like(classifier["bias"])}


def nearest_class_mean(
    features: Float[np.ndarray, "images features"],
    labels: Integer[np.ndarray, " images"],
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Nearest class mean (NCM) on centered features of unit Euclidean norm.

    The mean of all features is subtracted from each and the differences are scaled to unit norm;
    a class's center is their mean over the class, not scaled to unit norm again.

    Features and labels are those of all training images; sums are taken in float64.

    Returns:
        Parameters of a "nearest_class_mean" head: mean (D,) and centers (C, D), float32.

    Raises:
        UsageError: a class has no image.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    if labels.max() >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {labels.max()}")
    members = members_by_class(labels, num_classes)
    mean = features.mean(axis=0, dtype=np.float64)
    # Class by class: a float64 copy of all features may not fit.
    centers = np.stack([unit_rows(features[rows] - mean).mean(axis=0) for rows in members])
    return {"mean": mean.astype(np.float32), "centers": centers.astype(np.float32)}
