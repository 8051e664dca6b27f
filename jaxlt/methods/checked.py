"""A method that looks at what it is handed, for the first steps of a new training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import at_least_32_bits
from jaxlt.sharpness.perturbation import Leaves, norm
from jaxlt.sharpness.real_parts import losses_by_real_parts, real_parts

# Rounding in 16 bits is far below, another batch or dropout mask far above.
_TOLERANCE = 0.05


def checked(method: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Makes a method compare the gradient that it receives with that of `class_losses_fn`.

    The incoming gradient must be that of `class_losses_fn(params).mean()`: methods read it, and
    nothing about an array tells that it is another one. This takes the gradient itself, one pass
    more a step, and raises where the two differ by more than 5% of its norm. It notices an
    optimizer before the method, the gradient of a sum, loss scaling, penalties, `optax.MultiSteps`
    around the method, another batch and other dropout masks. Take it away once the loop is right.

    Args:
        method: one of jaxlt's.

    Raises:
        ValueError: at `update`, the gradient is another. Under `jax.jit` it comes when the step
            runs, within `jax.errors.JaxRuntimeError`.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.checked(jaxlt.sam(rho=0.5))
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)  # not of losses_fn(w).sums.sum()
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.65 2.2 ]
    """
    method = optax.with_extra_args_support(method)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        result = method.update(updates, state, params, **extra_args)
        parts = real_parts(params, params)
        losses_fn = losses_by_real_parts(extra_args["class_losses_fn"], params, parts)
        gradient = jax.tree.leaves(jax.grad(lambda p: losses_fn(p).mean())(parts))
        if not gradient:
            return result
        right = list(map(at_least_32_bits, gradient))
        leaves = jax.tree.leaves(real_parts(params, updates))
        got = [u.astype(r.dtype) for u, r in zip(leaves, right, strict=True)]
        lengths = norm(right), norm(_less(got, right, jnp.ones([])))
        factor = sum(jnp.vdot(r, u) for r, u in zip(right, got, strict=True)) / lengths[0] ** 2
        found = factor, *lengths, norm(_less(got, right, factor))
        if any(isinstance(number, Tracer) for number in found):
            jax.debug.callback(_judge, *found)
        else:
            _judge(*found)
        return result

    return optax.GradientTransformationExtraArgs(method.init, update_fn)


def _less(got: Leaves, right: Leaves, factor: Float[Array, ""]) -> Leaves:
    return [u - factor.astype(r.dtype) * r for u, r in zip(got, right, strict=True)]


def _judge(factor: Array, length: Array, away: Array, beside: Array) -> None:
    """Raises where the gradient is another, `away` from the right one and `beside` its line."""
    if away <= _TOLERANCE * length:
        return
    need = "updates must be the gradient of class_losses_fn(params).mean(), got"
    if beside > _TOLERANCE * abs(factor) * length:
        raise ValueError(
            f"{need} one that differs from it by {away / length:.0%}: put the method first in "
            "optax.chain, and give both the same batch, loss and dropout key"
        )
    remedy = "put the method first in optax.chain, before the optimizer"
    if factor > 1:
        remedy = "divide the loss by the batch size, or undo loss scaling, before the method"
    raise ValueError(f"{need} {factor:.3g} times it: {remedy}")
