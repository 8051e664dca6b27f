"""The losses of a batch with the pass that computed them, which methods need not repeat."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import ClassLosses, ClassLossesFn, FactoredLosses, check_class_losses


@dataclasses.dataclass(frozen=True)
class KnownLosses:
    """A `class_losses_fn` that knows its value and pullback at some parameters.

    Attributes:
        function: from parameters to `ClassLosses`.
        params: the parameters.
        losses: at these.
        pullback: from weights of the class sums to the gradient of their weighted sum there.
    """

    function: ClassLossesFn
    params: Any
    losses: ClassLosses
    pullback: Callable[[Float[Array, " classes"]], Any]

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
        losses_fn: from params, and what else it is called with, to the batch's `ClassLosses`.
        has_aux: whether `losses_fn` returns a pair, of `ClassLosses` and anything else, such as new
            batch statistics.

    Returns:
        A function that takes the arguments of `losses_fn` and returns the batch-mean loss (with
        `has_aux`, the pair of it and the rest), its gradient by params, and the `class_losses_fn`.

    Raises:
        TypeError: when called, `losses_fn` returns no `ClassLosses`.

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

    def loss_and_gradient(params: Any, *args: Any) -> tuple[Any, Any, ClassLossesFn]:
        if isinstance(losses_fn, FactoredLosses):
            loss, gradient = jax.value_and_grad(lambda p: losses_fn(p).mean(), allow_int=True)(
                params
            )
            return loss, gradient, losses_fn

        def sums_fn(params: Any) -> tuple[Array, tuple[ClassLosses, Any]]:
            losses, aux = losses_and_aux(losses_fn(params, *args), has_aux)
            return losses.sums, (losses, aux)

        sums, pullback, (losses, aux) = jax.vjp(sums_fn, params, has_aux=True)
        loss, mean_pullback = jax.vjp(lambda s: ClassLosses(s, losses.counts).mean(), sums)
        weights = mean_pullback(jnp.ones_like(loss))
        known = KnownLosses(
            lambda p: losses_and_aux(losses_fn(p, *args), has_aux)[0],
            params,
            losses,
            lambda weights: pullback(weights)[0],
        )
        return (loss, aux) if has_aux else loss, pullback(*weights)[0], known

    return loss_and_gradient


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
