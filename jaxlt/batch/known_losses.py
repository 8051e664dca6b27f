"""The losses of a batch with the pass that computed them, which methods need not repeat."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import (
    ClassLosses,
    ClassLossesFn,
    FactoredLosses,
    check_class_losses,
    class_losses,
)


@dataclasses.dataclass(frozen=True)
class KnownLosses:
    """A `class_losses_fn` that knows its value and pullback at some parameters.

    Attributes:
        function: from parameters to `ClassLosses`.
        params: the parameters.
        losses: at these.
        pullback: from weights of the class sums to the gradient of their weighted sum there.
        of_features: of a `FactoredLosses`, the features at these parameters, and the function from
            a gradient by them to that by the parameters.
    """

    function: ClassLossesFn
    params: Any
    losses: ClassLosses
    pullback: Callable[[Float[Array, " classes"]], Any]
    of_features: tuple[Array, Callable[[Array], Any]] | None = None

    def __call__(self, params: Any) -> ClassLosses:
        """Returns the losses at any parameters."""
        return self.losses if self.is_at(params) else self.function(params)

    def is_at(self, params: Any) -> bool:
        """Tells whether parameters are these very arrays; equal ones count as others."""
        leaves, known = jax.tree.leaves(params), jax.tree.leaves(self.params)
        return len(leaves) == len(known) and all(map(operator.is_, leaves, known))


def value_and_grad(
    losses_fn: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, ClassLossesFn]]:
    """Makes what a method's `update` needs: the loss, its gradient, and the `class_losses_fn`.

    It takes the place of `jax.value_and_grad` in a loop. The method then goes on from this very
    pass. A step so has no forward pass twice, whatever network and norm layers: XLA need not
    notice that two are the same.

    Args:
        losses_fn: from params, and what else it is called with, to the batch's `ClassLosses`; or a
            `FactoredLosses`.
        has_aux: whether `losses_fn` returns a pair, of `ClassLosses` and anything else, such as new
            batch statistics. A `FactoredLosses` has a field for that.

    Returns:
        A function that takes the arguments of `losses_fn` and returns the batch-mean loss (with
        `has_aux`, the pair of it and the rest), its gradient by params, and the `class_losses_fn`.

    Raises:
        TypeError: when called, `losses_fn` returns no `ClassLosses`, or is a `FactoredLosses` with
            `has_aux` or arguments beside params.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> def losses_fn(w, images, labels):
        ...     losses = jaxlt.losses.cross_entropy(images @ w, labels)
        ...     return jaxlt.class_losses(losses, labels, num_classes=3)
        >>> w, images, labels = jnp.zeros((2, 3)), jnp.ones((4, 2)), jnp.array([0, 0, 0, 1])
        >>> loss, grads, class_losses_fn = jaxlt.value_and_grad(losses_fn)(w, images, labels)
        >>> tx = jaxlt.sam(rho=0.05)
        >>> updates, state = tx.update(
        ...     grads, tx.init(w), w, value=loss, class_losses_fn=class_losses_fn
        ... )
        >>> print(loss)
        1.0986123
    """

    def loss_and_gradient(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, ClassLossesFn]:
        if not isinstance(losses_fn, FactoredLosses):
            known, aux = _known(
                lambda p: losses_and_aux(losses_fn(p, *args, **kwargs), has_aux), params
            )
        elif has_aux or args or kwargs:
            need = "losses_fn must be a function for has_aux=True or arguments beside params"
            raise TypeError(f"{need}, got FactoredLosses, which has images and a field has_aux")
        else:
            known, aux = _known_of_factored(losses_fn, params)
        counts = known.losses.counts
        loss, pullback = jax.vjp(lambda s: ClassLosses(s, counts).mean(), known.losses.sums)
        gradient = known.pullback(*pullback(jnp.ones_like(loss)))
        with_aux = losses_fn.has_aux if isinstance(losses_fn, FactoredLosses) else has_aux
        return (loss, aux) if with_aux else loss, gradient, known

    return loss_and_gradient


def _known(losses_fn: Callable[[Any], tuple[ClassLosses, Any]], params: Any):
    def sums_fn(params: Any) -> tuple[Array, tuple[ClassLosses, Any]]:
        losses, aux = losses_fn(params)
        return losses.sums, (losses, aux)

    _, pullback, (losses, aux) = jax.vjp(sums_fn, params, has_aux=True)
    known = KnownLosses(
        lambda p: losses_fn(p)[0], params, losses, lambda weights: pullback(weights)[0]
    )
    return known, aux


def _known_of_factored(losses_fn: FactoredLosses, params: Any) -> tuple[KnownLosses, Any]:
    features, features_pullback, aux = jax.vjp(
        lambda p: losses_fn.features_and_aux(p, losses_fn.images), params, has_aux=True
    )

    def sums_fn(params: Any, features: Array) -> tuple[Array, ClassLosses]:
        labels = losses_fn.labels
        logits = losses_fn.logits(losses_fn.classifier_fn(params), features, labels)
        losses = class_losses(losses_fn.loss(logits, labels), labels, losses_fn.num_classes)
        return losses.sums, losses

    _, head_pullback, losses = jax.vjp(sums_fn, params, features, has_aux=True)

    def pullback(weights: Float[Array, " classes"]) -> Any:
        by_params, by_features = head_pullback(weights)
        return jax.tree.map(_sum, by_params, features_pullback(by_features)[0])

    of_features = features, lambda gradient: features_pullback(gradient)[0]
    return KnownLosses(losses_fn, params, losses, pullback, of_features), aux


def _sum(one: Array, other: Array) -> Array:
    # What has no derivative has no numbers either.
    return one if one.dtype == jax.dtypes.float0 else one + other


def losses_and_aux(result: Any, has_aux: bool) -> tuple[ClassLosses, Any]:
    """Returns what a user's `losses_fn` returned, None for the rest without `has_aux`.

    Raises:
        TypeError: it is no `ClassLosses`, or no pair.
    """
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        need = "a pair of jaxlt.ClassLosses and anything, as has_aux says"
        raise TypeError(f"losses_fn must return {need}, got {type(result).__name__}")
    losses, aux = result if has_aux else (result, None)
    return check_class_losses(losses, "losses_fn"), aux
