"""A method's whole gradient at every k-th step, and the part of it that lasts in between."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxlt.batch.argument_checks import (
    ScalarOrSchedule,
    at_step,
    check_choice,
    check_not_negative,
)
from jaxlt.batch.precision import at_least_32_bits, powers_of_two
from jaxlt.sharpness.perturbation import Leaves, inner, norm
from jaxlt.sharpness.state import SharpnessState


class EveryState(NamedTuple):
    """State of `every`, with one copy of the parameters.

    Attributes:
        step: steps taken.
        inner_state: the method's. Its `count` is of all steps, and so is its `loss` where `update`
            gets `value=`; what else it measured is of the last whole step.
        direction: of the last whole gradient, the part orthogonal to the plain one; zeros at first.
    """

    step: Int[Array, ""]
    inner_state: optax.OptState
    direction: Any


def every(
    k: int,
    method: optax.GradientTransformation,
    *,
    alpha: ScalarOrSchedule = 0.1,
    layer_wise: bool = False,
    phase: Literal["auto", "whole", "reused"] = "auto",
) -> optax.GradientTransformationExtraArgs:
    """LookSAM for any method (Liu et al., CVPR 2022, algorithm 1): the whole of it at few steps.

    Steps 0, k, 2k... are whole (the paper's SAM steps): they return the method's gradient g_s, and
    store its part g_v that is orthogonal to the plain gradient g, the incoming one. The steps
    between reuse g_v and cost what SGD does:

        `g_v = g_s - (g . g_s / ||g||^2) g`  and, in between,  `g + alpha (||g|| / ||g_v||) g_v`

    With k = 1 it is the method itself. The state holds one copy of the parameters, g_v. A g_v
    no larger than rounding error is taken as zero. Every keyword goes on to the method. Schedules
    of jaxlt's methods count all steps. A transformation with a count of its own, such as
    `optax.inject_hyperparams`, must stand around `every`; so must `jaxlt.per_shard`.

    What descends stands behind: `optax.chain(every(5, method), optax.sgd(0.1))`. Within, as in
    `every(5, optax.chain(method, optax.sgd(0.1)))`, it would turn the whole steps alone, and the
    others would climb. Links that turn a gradient into a gradient, such as clipping, may stand
    within. `jaxlt.checked(every(...))` tells the two apart.

    A whole step reads the plain gradient. Focal-SAM at k = 5 costs `(8/3 + 4) / 5 = 1.33` SGD
    steps. It does not pay for methods as cheap as SGD, such as CC-SAM on the classifier.

    By default one program holds both kinds of step and a conditional picks one. There XLA merges no
    pass of the method with yours (`jaxlt.value_and_grad` hands yours to it), and runs convolutions
    slowly on a CPU; under `vmap` over the state both kinds are computed. Where that matters,
    compile one step with `phase="whole"` and one with `"reused"`, and call the first at every k-th
    step: all have the same state.

    Args:
        k: steps from one whole gradient to the next, at least 1; the paper has 5.
        method: one of jaxlt's, or a chain of it and other links that give gradients.
        alpha: length of the reused part over that of the plain gradient, at least 0, or a schedule
            of it. The paper has 0.7. It does not follow the radius: where that is small, 0.7 is
            much. One run in five diverged with it on Fashion-MNIST-LT, none with 0.1.
        layer_wise: whether norms and the projection are each leaf's own, as in released code, in
            place of one over all leaves. (The paper's Look-LayerSAM scales the perturbation by
            layer, which is the method's affair.)
        phase: "auto" decides by the count of steps. "whole" makes every step whole, "reused" none:
            it does not even trace the method, and needs no `class_losses_fn`; with k = 1 there are
            none.

    Raises:
        TypeError: k is no integer, or the method no optax transformation.
        ValueError: a number is out of range, or the phase unknown; at `init`, no link of the
            method is one of jaxlt's.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses (c + 1) * w[c]**2
        ...     return jaxlt.ClassLosses(jax.numpy.arange(1.0, 3) * w**2, jax.numpy.ones(2))
        >>> w = jax.numpy.array([4.0, 1.5])
        >>> tx = jaxlt.every(2, jaxlt.sam(rho=0.5), alpha=1.0)
        >>> state, gradient = tx.init(w), jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> for _ in range(2):
        ...     result, state = tx.update(gradient, state, w, class_losses_fn=losses_fn)
        ...     print(result.round(2))
        [4.4 3.6]
        [1. 7.]
    """
    if not isinstance(k, numbers.Integral) or isinstance(k, bool):
        got = type(k).__name__ if isinstance(k, optax.GradientTransformation) else repr(k)
        injected = isinstance(k, jax.Array)
        remedy = ": optax.inject_hyperparams takes it by static_args='k'" if injected else ""
        raise TypeError(f"k must be an integer of Python, got {got}{remedy}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not isinstance(method, optax.GradientTransformation):
        raise TypeError(
            f"method must be an optax transformation, such as jaxlt.sam(0.05), got {method!r}"
        )
    check_not_negative(alpha=alpha)
    check_choice("phase", phase, ("auto", "whole", "reused"))
    if k == 1 and phase == "reused":
        raise ValueError(
            "phase must be auto or whole with k = 1, got 'reused': all steps are whole"
        )
    method = optax.with_extra_args_support(method)
    if k == 1:
        return method

    def init_fn(params: optax.Params) -> EveryState:
        # A leaf without a gradient is not copied.
        direction = jax.tree.map(
            lambda w: jnp.zeros_like(w, jnp.result_type(w)) if _has_gradient(w) else (), params
        )
        inner = method.init(params)
        if not any(map(_is_measured, jax.tree.leaves(inner, is_leaf=_is_measured))):
            raise ValueError(
                "method must be one of jaxlt's or hold one, got a state without its own"
            )
        return EveryState(jnp.zeros([], jnp.int32), inner, direction)

    def update_fn(
        updates: optax.Updates,
        state: EveryState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EveryState]:
        # Python's numbers have neither type nor shape.
        updates = jax.tree.map(lambda u: u if hasattr(u, "dtype") else jnp.asarray(u), updates)
        leaves, tree = jax.tree.flatten(updates)
        places = [place for place, leaf in enumerate(leaves) if _is_inexact(leaf)]
        groups = [[place] for place in places] if layer_wise else [places]

        def whole() -> tuple[optax.Updates, EveryState]:
            # The method's schedules count all steps.
            inner = _with(state.inner_state, count=state.step)
            result, inner = method.update(updates, inner, params, **extra_args)
            taken, stored = tree.flatten_up_to(result), tree.flatten_up_to(state.direction)
            for group in groups:
                parts = _of_reals(_orthogonal, [[of[i] for i in group] for of in (taken, leaves)])
                for place, part in zip(group, parts, strict=True):
                    stored[place] = part.astype(stored[place].dtype)
            return result, EveryState(step, inner, tree.unflatten(stored))

        def reused() -> tuple[optax.Updates, EveryState]:
            stored, result = tree.flatten_up_to(state.direction), [*leaves]
            pull = functools.partial(_pulled, alpha=at_step(alpha, state.step))
            for group in groups:
                pulled = _of_reals(pull, [[of[i] for i in group] for of in (leaves, stored)])
                for place, leaf in zip(group, pulled, strict=True):
                    result[place] = leaf
            value = extra_args.get("value")
            known = {} if value is None else {"loss": jnp.asarray(value, jnp.float32)}
            inner = _with(state.inner_state, count=step, **known)
            return tree.unflatten(result), EveryState(step, inner, state.direction)

        step = jnp.asarray(optax.safe_increment(state.step))
        if phase == "auto":
            return jax.lax.cond(
                state.step % k == 0,
                lambda: _alike(whole(), updates),
                lambda: _alike(reused(), updates),
            )
        return whole() if phase == "whole" else reused()

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def _is_inexact(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _has_gradient(param: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(param), jnp.inexact)


def _is_measured(node: Any) -> bool:
    return isinstance(node, SharpnessState)


def _alike(tree: Any, like: Any) -> Any:
    """Marks floats as differing between the devices of a mapped axis where those of `like` do.

    The branches of a conditional must agree in that, and leave it to what a method measures.
    """
    leaves = [x for x in jax.tree.leaves(like) if _is_inexact(x)]
    apart = sum((jnp.zeros_like(jnp.abs(x).max(initial=0), int) for x in leaves), 0) > 0
    return jax.tree.map(lambda x: jnp.where(apart, x, x) if _is_inexact(x) else x, tree)


def _with(state: optax.OptState, **fields: Array) -> optax.OptState:
    """Returns a method's state with some of its fields replaced."""
    return jax.tree.map(
        lambda node: node._replace(**fields) if _is_measured(node) else node,
        state,
        is_leaf=_is_measured,
    )


def _of_reals(change: Callable[..., Leaves], lists: list[Leaves]) -> Leaves:
    """Returns a function of lists of real leaves, of which a complex leaf is two."""
    if not lists[0]:
        return []

    def reals(leaves: Leaves) -> Leaves:
        pairs = ([x.real, x.imag] if jnp.iscomplexobj(x) else [x] for x in leaves)
        return [part for pair in pairs for part in pair]

    changed = iter(change(*map(reals, lists)))
    return [
        jax.lax.complex(next(changed), next(changed)) if jnp.iscomplexobj(x) else next(changed)
        for x in lists[0]
    ]


def _orthogonal(taken: Leaves, plain: Leaves) -> Leaves:
    """Returns the part of a gradient that is orthogonal to the plain one, in at least 32 bits."""
    # Powers of two, so that nothing is left of a plain gradient, and no product out of range.
    (shrink, _), (taken_shrink, scale) = powers_of_two(norm(plain)), powers_of_two(norm(taken))
    unit = [_times(shrink, at_least_32_bits(x)) for x in plain]
    taken = [_times(taken_shrink, at_least_32_bits(x)) for x in taken]
    square = inner(unit, unit)
    along = inner(unit, taken) / jnp.where(square > 0, square, 1)
    parts = [x - _times(along, u) for x, u in zip(taken, unit, strict=True)]
    # What rounding leaves of a gradient that is the plain one has no direction.
    coarsest = max(float(jnp.finfo(x.dtype).eps) for x in plain)
    lasts = norm(parts) > 4 * coarsest * norm(taken)
    return [jnp.where(lasts, _times(scale, part), jnp.zeros_like(part)) for part in parts]


def _pulled(plain: Leaves, lasting: Leaves, alpha: Float[Array, ""]) -> Leaves:
    """Returns `g + alpha (||g|| / ||g_v||) g_v`, `g` where g_v is zero."""
    size, length = norm(plain), norm(lasting)
    factor = jnp.where(length > 0, alpha.astype(size.dtype) * size, 0)
    # Divided first: the ratio of the norms may be beyond what a float holds, as may 1 / length.
    shrink, _ = powers_of_two(length)
    per_length = 1 / jnp.where(length > 0, shrink * length, 1)
    pulled = []
    for leaf, part in zip(plain, lasting, strict=True):
        direction = _times(per_length, _times(shrink, at_least_32_bits(part)))
        added = at_least_32_bits(leaf) + _times(factor, direction)
        pulled.append(added.astype(leaf.dtype))
    return pulled


def _times(number: Float[Array, ""], leaf: Array) -> Array:
    return number.astype(leaf.dtype) * leaf
