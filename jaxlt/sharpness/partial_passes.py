"""The one equation by passes over parts of the batch, where images do not depend on each other.

A group's gradients at w and at w + eps_g involve the images of its classes alone. So groups that
share no class cost at most two gradients of the batch together.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jaxlt.batch.class_losses import FactoredLosses, batch_size
from jaxlt.batch.passes import Capacity, Passes
from jaxlt.batch.precision import at_least_32_bits, wide
from jaxlt.sharpness.equation import Objective, ObjectiveFn, Perturbed
from jaxlt.sharpness.perturbation import Leaves, PerturbationRule, Scope, add, norm

# Sums over some images: the losses, weighted and plain, and the gradient of the weighted sum.
_Part: TypeAlias = tuple[tuple[Array, Array], tuple[Leaves, Leaves]]


def gradient_by_parts(
    losses: FactoredLosses,
    scope: Scope,
    gradient: Any,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " groups"],
    rule: PerturbationRule,
    passes: Passes,
    value: Float[ArrayLike, ""] | None = None,
) -> Perturbed:
    """Computes the gradient of F for groups that share no class, each on its own images alone.

    `passes` is `Blocks`, or with one group `Capacity`. `value` is the batch-mean loss at w; where
    it is needed and None, that is NaN in the result.
    """
    dtype = jax.eval_shape(losses.losses, scope.params, losses.images, losses.labels).dtype
    counts = jax.nn.one_hot(losses.labels, losses.num_classes, dtype=dtype).sum(0)
    objective = jax.tree.map(lambda x: x.astype(dtype), objective_fn(counts))
    batch = _GroupedImages(losses, objective.groups)
    no_gradient = jax.tree.map(jnp.zeros_like, (scope.theta, scope.rest))
    # Made of the counts: in a loop under `jax.shard_map` it must be a shard's own, as they are.
    zero = jnp.zeros_like(counts[0])

    def part(theta: Leaves, group: Int[Array, ""]) -> _Part:
        def of_rows(images, labels, weights) -> _Part:
            def loss(theta, rest):
                values = losses.losses(scope.join(theta, rest), images, labels)
                plain = jnp.where(weights > 0, values, 0).sum()
                return (weights * values).sum(), plain

            return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(theta, scope.rest)

        return batch.sum_over(group, of_rows, ((zero, zero), no_gradient), passes)

    total, loss, share = _clean_part(losses, scope, gradient, objective, no_gradient, value)

    def add_group(index, carry):
        total, loss, norms, sharpness = carry
        group = batch.present_first[index]
        (before, plain), at_w = part(scope.theta, group)
        eps = rule.perturbation(at_w[0], scope.theta, rho[group], group)
        (after, _), moved = part(add(scope.theta, eps), group)

        def added(total, *gradients):
            t, d, g = map(at_least_32_bits, (total, *gradients))
            factors = share[group].astype(t.dtype), objective.mix[group].astype(t.dtype)
            return (t + factors[0] * d + factors[1] * g).astype(total.dtype)

        total = jax.tree.map(added, total, at_w, moved)
        norms = norms.at[group].set(norm(eps).astype(norms.dtype))
        change = after - before
        return total, loss + plain, norms, sharpness.at[group].set(change)

    num_groups = len(objective.mix)
    norms = jnp.full(num_groups, zero, wide(dtype))
    carry = (total, zero, norms, jnp.full(num_groups, zero))
    if num_groups == 1:
        # No loop around what may be convolutions.
        total, plain, norms, sharpness = add_group(0, carry)
    else:
        present = (batch.sizes > 0).sum()
        total, plain, norms, sharpness = jax.lax.fori_loop(0, present, add_group, carry)
    if loss is None:
        loss = plain / batch_size(counts)
    return Perturbed(scope.join(*total), loss, norms, sharpness)


def _clean_part(
    losses: FactoredLosses, scope: Scope, gradient: Any, objective: Objective, no_gradient, value
) -> tuple[tuple[Leaves, Leaves], Float[Array, ""] | None, Float[Array, " groups"]]:
    """Returns what the whole batch gives of the part of F that is taken at w.

    It is a gradient, the mean loss or None, and factors of the groups' gradients at w.
    """
    clean, groups, mix = objective
    if clean is None:
        return no_gradient, None, jnp.zeros_like(mix)
    if groups.ndim == 1:
        return no_gradient, None, jnp.where(groups > 0, clean / groups, 0)
    if gradient is not None:
        loss = jnp.asarray(jnp.nan if value is None else value, mix.dtype)
        return scope.split(gradient), loss, -jnp.ones_like(mix)

    def clean_loss(params):
        at_w = losses(params)
        return (clean * at_w.sums).sum(), at_w.mean()

    gradient, loss = jax.grad(clean_loss, has_aux=True)(scope.params)
    return scope.split(gradient), loss, jnp.zeros_like(mix)


class _GroupedImages:
    """A batch with the images of each group side by side.

    Groups have `sizes` (G,); `present_first` (G,) are their numbers, those with images first.
    """

    def __init__(self, losses: FactoredLosses, groups: Array):
        labels, num_groups = jnp.asarray(losses.labels), len(groups)
        if groups.ndim == 1:
            group_of_class, weight_of_class = jnp.arange(num_groups), groups
        else:
            member = groups > 0
            group_of_class = jnp.where(member.any(0), member.argmax(0), num_groups)
            weight_of_class = groups.sum(0)
        known = (labels >= 0) & (labels < losses.num_classes)
        group = jnp.where(known, group_of_class[labels], num_groups)
        order = jnp.argsort(group, stable=True)
        self._images = jax.tree.map(lambda x: jnp.asarray(x)[order], losses.images)
        self._labels = labels[order]
        self._weights = jnp.where(known, weight_of_class[labels], 0)[order]
        self.sizes = jax.nn.one_hot(group, num_groups, dtype=jnp.int32).sum(0)
        self._starts = jnp.cumsum(self.sizes) - self.sizes
        self.present_first = jnp.argsort(self.sizes == 0, stable=True)

    def sum_over(self, group: Array, fn: Callable[..., Any], zero: Any, passes: Passes) -> Any:
        """Sums a function of rows, `zero` for no rows, over the images of a group."""
        start, left = self._starts[group], self.sizes[group]
        if isinstance(passes, Capacity):
            total = fn(*self._rows(start, passes.images, left))
            # An image left out must not pass for one that had no gradient.
            return jax.tree.map(lambda x: jnp.where(left > passes.images, jnp.nan, x), total)
        total, smallest = zero, passes.sizes[-1]
        for size in passes.sizes:
            num_blocks = -(-left // size) if size == smallest else left // size

            def block(index, total, start=start, left=left, size=size):
                done = index * size
                rows = self._rows(start + done, size, left - done)
                return jax.tree.map(jnp.add, total, fn(*rows))

            total = jax.lax.fori_loop(0, num_blocks, block, total)
            start, left = start + num_blocks * size, left - num_blocks * size
        return total

    def _rows(self, start: Array, count: int, limit: Array) -> tuple[Any, ...]:
        """Returns images, labels and weights of rows; beyond the first `limit` they are 0."""
        places = jnp.arange(count)
        # Rows beyond the limit repeat real images, on which any network is finite.
        rows = jnp.minimum(start + places, self._labels.size - 1)
        weights = jnp.where(places < limit, self._weights[rows], 0)
        images = jax.tree.map(lambda x: x[rows], self._images)
        return images, self._labels[rows], weights
