"""Parameters that are not all real numbers: what the methods see of them.

A complex leaf counts as two real leaves, its real and its imaginary part, as in
`optax.contrib.split_real_and_imaginary`. A leaf that has no derivative (integers, booleans, keys of
`jax.random`) is a constant of the losses. A callable mask is given the parameters in this form.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import ClassLossesFn, FactoredLosses
from jaxlt.batch.known_losses import KnownLosses
from jaxlt.sharpness.equation import Perturbed

if TYPE_CHECKING:
    from jaxlt.sharpness.state import StepContext


class _Parts(NamedTuple):
    real: Float[Array, "*shape"]
    imag: Float[Array, "*shape"]


def check_leaves(params: optax.Params) -> None:
    """Refuses leaves that are neither arrays nor numbers.

    Raises:
        TypeError: there is one; the message names its place.
    """
    for path, leaf in jax.tree.leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(
                f"params must be a pytree of arrays, got {type(leaf).__name__} at params"
                f"{jax.tree_util.keystr(path)}: keep such leaves apart and put them back in "
                "class_losses_fn, as equinox.partition(model, equinox.is_array) and "
                "equinox.combine do"
            )


def gradient_by_real_parts(
    gradient_fn: Callable[["StepContext"], Perturbed], step: "StepContext", num_groups: int
) -> Perturbed:
    """Computes a method's gradient by the real parts of the parameters.

    The gradient by a complex parameter w, incoming and returned, is `dL/d(real w) + i dL/d(imag
    w)`, the direction of ascent: optax's convention, and the conjugate of what `jax.grad` gives.

    Returns:
        The method's result. Where a parameter has no derivative, its gradient holds the leaf of
        the incoming one. If none has one, that is all of it, and nothing was perturbed.
    """
    params = step.params
    parts = real_parts(params, params)
    if not jax.tree.leaves(parts):
        nothing = jnp.zeros(num_groups)
        return Perturbed(step.gradient, step.class_losses_fn(params).mean(), nothing, nothing)
    ascent = step.ascent_losses_fn
    result = gradient_fn(
        step._replace(
            class_losses_fn=losses_by_real_parts(step.class_losses_fn, params, parts),
            params=parts,
            gradient=real_parts(params, step.gradient),
            ascent_losses_fn=ascent and losses_by_real_parts(ascent, params, parts),
        )
    )
    return result._replace(gradient=_joined(result.gradient, step.gradient))


def losses_by_real_parts(losses_fn: ClassLossesFn, params: Any, parts: Any) -> ClassLossesFn:
    """Returns the losses as a function of real parts, such as `parts` of `params`."""

    def of_parts(fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda parts, *images: fn(_joined(parts, params), *images)

    if isinstance(losses_fn, FactoredLosses):
        features_fn, classifier_fn = map(of_parts, (losses_fn.features_fn, losses_fn.classifier_fn))
        return dataclasses.replace(losses_fn, features_fn=features_fn, classifier_fn=classifier_fn)
    if isinstance(losses_fn, KnownLosses) and losses_fn.is_at(params):
        of_features = losses_fn.of_features
        if of_features is not None:
            features, by_features = of_features
            of_features = features, lambda gradient: real_parts(params, by_features(gradient), -1)
        # What JAX pulls back to a complex leaf is the conjugate of the direction of ascent.
        return dataclasses.replace(
            losses_fn,
            function=losses_by_real_parts(losses_fn.function, params, parts),
            params=parts,
            pullback=lambda weights: real_parts(params, losses_fn.pullback(weights), -1),
            of_features=of_features,
        )
    return of_parts(losses_fn)


def real_parts(params: Any, tree: Any, sign: int = 1) -> Any:
    """Returns the real parts of a tree like `params`, with imaginary ones times a sign.

    Where a leaf of `params` has no derivative there are none.
    """

    def split(param: Any, leaf: Any) -> Any:
        dtype = jnp.result_type(param)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            return _Parts(jnp.real(leaf), sign * jnp.imag(leaf))
        return jnp.asarray(leaf) if jnp.issubdtype(dtype, jnp.floating) else None

    return jax.tree.map(split, params, tree)


def _joined(parts: Any, tree: Any) -> Any:
    """Undoes `real_parts`; leaves that have no derivative are those of `tree`."""

    def joined(leaf: Any, part: Any) -> Any:
        if part is None:
            return leaf
        return jax.lax.complex(*part) if isinstance(part, _Parts) else part

    return jax.tree.map(joined, tree, parts)
