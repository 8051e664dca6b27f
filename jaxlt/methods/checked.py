"""A method that looks at what it is handed, for the first steps of a new training loop."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxlt.batch.precision import at_least_32_bits
from jaxlt.sharpness.perturbation import Leaves, inner, norm
from jaxlt.sharpness.real_parts import losses_by_real_parts, real_parts

# Rounding in 16 bits is far below, another batch or dropout mask far above.
_TOLERANCE = 0.05
# Cosine of an angle to the gradient that no method's result has, but that of a descent has.
_DOWN = -0.5


def checked(method: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Makes a method compare the gradient that it receives with that of `class_losses_fn`.

    The incoming gradient must be that of `class_losses_fn(params).mean()`: methods read it, and
    nothing about an array tells that it is another one. This takes the gradient itself, one pass
    more a step, and raises where the two differ by more than 5% of its norm. It notices an
    optimizer before the method, the gradient of a sum, loss scaling, penalties, `optax.MultiSteps`
    around the method, another batch and other dropout masks. It notices too a result that points
    down, as of `every(5, optax.chain(method, optax.sgd(0.1)))`, whose other steps climb. A loss and
    a gradient that both are not finite pass: loss scaling meets them. Take it away once the loop is
    right.

    It goes around the method alone: it cannot see what is before the method within
    `checked(optax.chain(optax.sgd(0.1), method))`. With `jaxlt.per_shard` it is
    `per_shard(checked(method), axis_name)`, where each shard has a gradient of its own.

    Args:
        method: one of jaxlt's, or `every` of one.

    Raises:
        TypeError: the method is no optax transformation.
        ValueError: at `update`, the gradient is another, or the result points down. Under `jax.jit`
            it comes when the step runs, within `jax.errors.JaxRuntimeError`.

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
    if not isinstance(method, optax.GradientTransformation):
        raise TypeError(
            f"method must be an optax transformation, such as jaxlt.sam(0.05), got {method!r}"
        )
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
        loss, gradient = jax.value_and_grad(lambda p: losses_fn(p).mean())(parts)
        right = list(map(at_least_32_bits, jax.tree.leaves(gradient)))
        if not right:
            return result
        got, returned = (
            [u.astype(r.dtype) for u, r in zip(jax.tree.leaves(real), right, strict=True)]
            for real in (real_parts(params, tree) for tree in (updates, result[0]))
        )
        length = norm(right)
        # Relative to the right one: products of small gradients would be no numbers.
        right, got = _divided(right, length), _divided(got, length)
        factor, away = inner(right, got), norm(_less(got, right, jnp.ones([])))
        cosine = inner(right, _divided(returned, norm(returned)))
        found = loss, length, factor, away, norm(_less(got, right, factor)), cosine
        if any(isinstance(number, Tracer) for number in found):
            jax.debug.callback(_judge, *found)
        else:
            _judge(*found)
        return result

    return optax.GradientTransformationExtraArgs(method.init, update_fn)


def _less(got: Leaves, right: Leaves, factor: Float[Array, ""]) -> Leaves:
    return [u - factor.astype(r.dtype) * r for u, r in zip(got, right, strict=True)]


def _divided(leaves: Leaves, by: Float[Array, ""]) -> Leaves:
    return [x / jnp.where(by > 0, by, 1).astype(x.dtype) for x in leaves]


def _judge(
    loss: Array, length: Array, factor: Array, away: Array, beside: Array, cosine: Array
) -> None:
    """Raises where the gradient is another, or the result of the method points down.

    The gradient is `factor` times the right one and `beside` its line, `away` from it in all, all
    by the right one's length. `cosine` is of the angle between the result and the right one.
    """
    need = "updates must be the gradient of class_losses_fn(params).mean(), got"
    if not math.isfinite(length):
        if math.isfinite(loss):
            raise ValueError(f"class_losses_fn must have a finite gradient, got norm {length}")
        return
    if not math.isfinite(away):
        raise ValueError(f"{need} one that is not finite where that of class_losses_fn is")
    if length == 0 and away > 0:
        raise ValueError(f"{need} one of norm {away:.3g} where that of class_losses_fn is zero")
    if away <= _TOLERANCE:
        if cosine < _DOWN:
            raise ValueError(
                "method must return a gradient, got what points against it: put what descends, "
                "such as optax.sgd, behind jaxlt.checked and jaxlt.every in optax.chain"
            )
        return
    if beside > _TOLERANCE * abs(factor):
        raise ValueError(
            f"{need} one that differs from it by {away:.0%}: put the method first in "
            "optax.chain, and give both the same batch, loss and dropout key"
        )
    if factor < 0:
        remedy = "put the method first in optax.chain, before the optimizer"
    elif factor < 1:
        remedy = "divide the loss by the images that count, not the padding, or undo loss scaling"
    else:
        remedy = "divide the loss by the batch size, or undo loss scaling, before the method"
    raise ValueError(f"{need} {factor:.3g} times it: {remedy}")
