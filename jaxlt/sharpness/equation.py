"""The one equation behind SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM, and how it is computed.

Each method is the gradient, at parameters w, of

    F(w) = sum_c clean[c] * S_c(w) + sum_g mix[g] * sum_c groups[g, c] * S_c(w + eps_g)
    eps_g = radius_g * d_g / ||d_g||,   d_g = gradient of sum_c groups[g, c] * S_c at w

where S_c is the sum of the batch's losses of class c and eps_g is a constant. A rule may give it a
random direction in place of d_g. With `groups[g, c] = A[g, c] / B` and `clean` the share of each
class that no group takes, F is the batch-mean loss plus, for each group, the change of its loss
from w to w + eps_g. A method chooses the three arrays and the radii. Nothing here knows networks
or images. What is known of the losses decides how the gradient is computed, never its value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxlt.batch.class_losses import (
    ClassLosses,
    ClassLossesFn,
    FactoredLosses,
    batch_size,
    check_class_losses,
)
from jaxlt.batch.known_losses import KnownLosses
from jaxlt.batch.passes import Blocks, Capacity
from jaxlt.batch.precision import wide
from jaxlt.sharpness.perturbation import Leaves, Mask, PerturbationRule, Scope, add, norm


class Objective(NamedTuple):
    """Weights of the batch's class sums S_c in the objective that a method descends on.

    `F = sum_c clean[c] S_c(w) + sum_g mix[g] sum_c groups[g, c] S_c(w + eps_g)`.

    Attributes:
        clean: weights of the sums taken at w, or None where nothing is.
        groups: weights of the sums in each group's loss; one row if each class is a group.
        mix: weights of the groups' losses, taken at their own perturbed parameters.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> counts = jnp.array([3.0, 1.0])  # images of each class in the batch
        >>> print(jaxlt.Objective.of_shares(jnp.array([[0.0, 1.0]]), counts).clean)
        [0.25 0.  ]
    """

    clean: Float[Array, " classes"] | None
    groups: Float[Array, "groups classes"] | Float[Array, " classes"]
    mix: Float[Array, " groups"]

    @classmethod
    def of_shares(
        cls, shares: Float[Array, "groups classes"], counts: Float[Array, " classes"]
    ) -> "Objective":
        """Returns that of the batch-mean loss, of which groups take the shares `A[g, c]`."""
        size, shares = batch_size(counts), jnp.asarray(shares, counts.dtype)
        return cls((1 - shares.sum(0)) / size, shares / size, jnp.ones(len(shares)))


ObjectiveFn: TypeAlias = Callable[[Float[Array, " classes"]], Objective]


class Perturbed(NamedTuple):
    """A sharpness-aware gradient and what was measured on the way."""

    gradient: Any  # pytree like the parameters
    loss: Float[Array, ""]  # batch-mean loss at w
    perturbation_norm: Float[Array, " groups"]  # `||eps_g||`
    sharpness: Float[Array, " groups"]  # group loss at `w + eps_g` minus group loss at w
    bounded: Float[Array, ""] | float = 0.0  # share of the perturbed groups


def class_sums_fn(
    class_losses_fn: ClassLossesFn, scope: Scope
) -> Callable[[Leaves, Leaves], tuple[Float[Array, " classes"], ClassLosses]]:
    """Splits the argument of `class_losses_fn` into (theta, rest), for differentiation.

    Returns:
        A function to the sums and, as an auxiliary output, the `ClassLosses` with counts in
        at least 32 bits.

    Raises:
        TypeError: when called, `class_losses_fn` returns no `ClassLosses`.
        ValueError: when called, its arrays are not of shape (C,).
    """

    def class_sums(theta: Leaves, rest: Leaves) -> tuple[Array, ClassLosses]:
        losses = check_class_losses(class_losses_fn(scope.join(theta, rest)))
        counts = losses.counts.astype(wide(losses.sums.dtype))
        return losses.sums, ClassLosses(losses.sums, counts)

    return class_sums


def pass_at_w(
    class_losses_fn: ClassLossesFn, scope: Scope
) -> tuple[Float[Array, " classes"], Callable[[Array], tuple[Leaves, Leaves]], ClassLosses]:
    """Returns the class sums at w, their pullback to (theta, rest), and the losses."""
    if isinstance(class_losses_fn, KnownLosses) and class_losses_fn.is_at(scope.params):
        losses, pullback = class_losses_fn.losses, class_losses_fn.pullback
        counts = losses.counts.astype(wide(losses.sums.dtype))
        wide_losses = ClassLosses(losses.sums, counts)
        return losses.sums, lambda weights: scope.split(pullback(weights)), wide_losses
    return jax.vjp(class_sums_fn(class_losses_fn, scope), scope.theta, scope.rest, has_aux=True)


def sharpness_aware_gradient(
    class_losses_fn: ClassLossesFn,
    params: Any,
    gradient: Any,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " groups"],
    *,
    rule: PerturbationRule,
    mask: Mask = None,
    disjoint: bool = False,
    value: Float[ArrayLike, ""] | None = None,
    ascent_losses_fn: ClassLossesFn | None = None,
) -> Perturbed:
    """Computes the gradient of the module's objective F at `params`, for few groups of classes.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`; deterministic, counts fixed.
        params: pytree of arrays, w.
        gradient: gradient of the batch-mean loss at w, like `params`; None where the objective's
            parts do not add up to that loss.
        objective_fn: from the batch's class counts to its `Objective`.
        rho: what the rule takes for each group.
        rule: how a group's gradient becomes its perturbation.
        mask: the leaves that are perturbed (theta), all by default.
        disjoint: whether no class is in two groups. Then passes over each group's images pay,
            where `class_losses_fn` is a `FactoredLosses` that allows them.
        value: batch-mean loss at w, for the measurements, where no pass at w is taken.
        ascent_losses_fn: likewise of part of the batch, from which the d_g are taken.

    Returns:
        The gradient and measurements. Norms are taken in at least 32 bits. What would need a pass
        of its own is NaN.

    Raises:
        TypeError: `class_losses_fn` returns no `ClassLosses`.
        ValueError: the mask does not fit `params` or selects nothing.
    """
    scope = Scope(params, mask)
    losses_fn = class_losses_fn
    if isinstance(class_losses_fn, KnownLosses):
        losses_fn = class_losses_fn.function
    if disjoint and ascent_losses_fn is None and isinstance(losses_fn, FactoredLosses):
        passes = losses_fn.passes if losses_fn.in_parts else None
        if isinstance(passes, Blocks) or (isinstance(passes, Capacity) and rho.size == 1):
            # It computes this module's equation, and needs its words.
            from jaxlt.sharpness.partial_passes import gradient_by_parts

            return gradient_by_parts(
                losses_fn, scope, gradient, objective_fn, rho, rule, passes, value
            )
    class_sums = class_sums_fn(class_losses_fn, scope)
    # Where nothing but the counts is read of it, `jit` drops the pass.
    sums, pullback, losses = pass_at_w(class_losses_fn, scope)
    clean, groups, mix = objective_fn(losses.counts)
    groups = groups.astype(sums.dtype)
    mean_gradient = None if gradient is None else scope.split(gradient)
    one_mean = clean is None and mean_gradient is not None and len(groups) == 1
    if ascent_losses_fn is not None:
        directions = _directions(ascent_losses_fn, scope, objective_fn)
    elif one_mean and mean_gradient is not None:
        directions = [mean_gradient]
    else:
        # Never by subtraction: a group without gradient must have direction 0, not rounding's.
        directions = [pullback(weights) for weights in groups]
    loss, before = losses.mean(), [(weights * sums).sum() for weights in groups]
    if clean is None and (one_mean or ascent_losses_fn is not None):
        loss = jnp.asarray(jnp.nan if value is None else value, sums.dtype)
        before = [loss if one_mean else jnp.nan] * len(groups)
    gradients, norms, sharpness, moved_loss = [], [], [], jnp.zeros([])
    if clean is not None and (mean_gradient is None or ascent_losses_fn is not None):
        gradients.append(pullback(clean.astype(sums.dtype)))
    elif clean is not None:
        gradients.append(
            jax.tree.map(lambda x, *d: x.astype(d[0].dtype) - sum(d), mean_gradient, *directions)
        )
    for group, (weights, direction, group_rho, group_mix) in enumerate(
        zip(groups, directions, rho, mix, strict=True)
    ):

        def group_loss(theta, rest, weights=weights):
            return (weights * class_sums(theta, rest)[0]).sum()

        eps = rule.perturbation(direction[0], scope.theta, group_rho, group)
        moved = add(scope.theta, eps)
        if sharpness:
            # Adds nothing, but makes this pass begin after the forward pass before it: both at
            # once take more memory, and on a CPU longer (SSE-SAM 3.1 SGD steps instead of 2.5).
            moved = [w + 0 * moved_loss.astype(w.dtype) for w in moved]
        moved_loss, gradient = jax.value_and_grad(group_loss, argnums=(0, 1))(moved, scope.rest)

        def weighted(x, mix=group_mix):
            return (mix.astype(wide(x.dtype)) * x.astype(wide(x.dtype))).astype(x.dtype)

        gradients.append(jax.tree.map(weighted, gradient))
        norms.append(norm(eps))
        sharpness.append(moved_loss - before[group])
    total = jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *gradients)
    return Perturbed(scope.join(*total), loss, jnp.stack(norms), jnp.stack(sharpness))


def _directions(
    ascent_losses_fn: ClassLossesFn, scope: Scope, objective_fn: ObjectiveFn
) -> list[tuple[Leaves]]:
    """Returns the groups' gradients by theta on part of the batch."""
    part_sums = class_sums_fn(ascent_losses_fn, scope)
    sums, pullback, losses = jax.vjp(lambda t: part_sums(t, scope.rest), scope.theta, has_aux=True)
    return [pullback(weights) for weights in objective_fn(losses.counts).groups.astype(sums.dtype)]
