"""SSE-SAM: SAM on head and tail apart, later on the tail alone."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Real

from jaxlt.batch.argument_checks import (
    ClassCounts,
    ScalarOrSchedule,
    check_not_negative,
    check_whole,
)
from jaxlt.batch.class_losses import batch_size
from jaxlt.methods.groups import Groups
from jaxlt.methods.imb_sam import tail_classes
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.equation import Objective
from jaxlt.sharpness.perturbation import Mask
from jaxlt.sharpness.state import SharpnessState


def sse_sam(
    class_counts: ClassCounts,
    head_rho: ScalarOrSchedule = 0.05,
    tail_rho: ScalarOrSchedule = 0.05,
    *,
    tail_threshold: Real[ArrayLike, ""] = 20,
    switch_step: int | None = None,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """SSE-SAM (Lyu et al., AAAI 2025): SAM on head and tail apart, later on the tail alone.

    The first stage returns the gradient of `L_head(w + eps_head) + L_tail(w + eps_tail)`, where
    each perturbation follows its own group's gradient. A step costs three forward and four
    backward passes. In the second stage the head's radius is 0: this is ImbSAM, at its cost.

    With a `switch_step` above 0, one program holds both stages and a conditional picks one. XLA
    runs convolutions inside a conditional slowly on a CPU. There, compile one step with `None` and
    one with `switch_step=0`, and change from the first to the second: both have the same state.

    Args:
        class_counts: training images of each class.
        head_rho: radius of the head, at least 0, or a schedule of it. The number 0 means the
            second stage from the first step on.
        tail_rho: radius of the tail, likewise.
        tail_threshold: a class is tail if it has strictly fewer training images.
        switch_step: first step of the second stage. 0 builds that stage alone, None the first.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether radii are relative to each weight's magnitude (ASAM).

    Raises:
        ValueError: negative radius or bad counts; at `init` or `update`, a mask that does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.sse_sam((90, 10), head_rho=0.5, tail_rho=1, tail_threshold=20)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.75 2.5 ]
    """
    check_not_negative(head_rho=head_rho, tail_rho=tail_rho)
    if switch_step is not None:
        check_whole(0, switch_step=switch_step)
    tail = tail_classes(class_counts, tail_threshold)

    def head_and_tail(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        return Objective(None, jnp.stack([1 - tail, tail]) / batch_size(counts), jnp.ones(2))

    groups = Groups(head_and_tail, 2, tail.size, sums_to_mean=True, disjoint=True)
    make = functools.partial(sharpness_aware, groups, mask=mask, adaptive=adaptive)
    if switch_step is None:
        return make((head_rho, tail_rho))
    if not isinstance(switch_step, Tracer) and switch_step == 0:
        return make((0, tail_rho))
    first = make((head_rho, tail_rho))
    # Reading the incoming gradient would make the first stage pay for it too.
    second = make((0, tail_rho), reads_gradient=False)

    def update_fn(
        updates: optax.Updates,
        state: SharpnessState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SharpnessState]:
        return jax.lax.cond(
            state.count < switch_step,
            lambda: first.update(updates, state, params, **extra_args),
            lambda: second.update(updates, state, params, **extra_args),
        )

    return optax.GradientTransformationExtraArgs(first.init, update_fn)  # pyright: ignore[reportArgumentType]
