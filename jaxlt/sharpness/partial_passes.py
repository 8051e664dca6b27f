"""The one equation by passes over parts of the batch, where images do not depend on each other.

A group's gradients at w and at w + eps_g involve the images of its classes alone. So groups that
share no class cost at most two gradients of the batch together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import batch_size
from jaxlt.batch.factored_losses import Capacity, FactoredLosses, Passes
from jaxlt.sharpness.objective import Objective, ObjectiveFn, Perturbed
from jaxlt.sharpness.perturbation import Leaves, PerturbationRule, Scope, add, norm


class _Part(NamedTuple):
    """Sums over some images: weighted loss, plain loss, and the weighted one's gradient."""

    weighted_loss: jax.Array
    plain_loss: jax.Array
    gradient: tuple[Leaves, Leaves]


class _Rows(NamedTuple):
    images: Any
    labels: jax.Array
    weights: jax.Array


def gradient_by_parts(
    losses: FactoredLosses,
    scope: Scope,
    gradient: Any,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    rule: PerturbationRule,
    passes: Passes,
) -> Perturbed:
    """Computes the gradient of F for groups that share no class, each on its own images alone.

    Where each class is a group, the clean part comes from the groups' gradients at w.

    Args:
        losses: of images that do not depend on each other.
        scope: see `gradient_in_sequence`, as the next four.
        gradient: see there.
        objective_fn: see there.
        rho: see there.
        rule: see there.
        passes: `Blocks`, or with one group `Capacity`.
    """
    params = scope.join(scope.theta, scope.rest)
    dtype = jax.eval_shape(losses.losses, params, losses.images, losses.labels).dtype
    counts = jax.nn.one_hot(losses.labels, losses.num_classes, dtype=dtype).sum(0)
    objective = objective_fn(counts)
    batch = _GroupedImages(losses, objective.groups.astype(dtype))
    no_gradient = jax.tree.map(jnp.zeros_like, (scope.theta, scope.rest))
    # Made of the counts: in a loop under `jax.shard_map` it must be a shard's own, as they are.
    zero = jnp.zeros_like(counts[0])

    def part(theta: Leaves, group: jax.Array) -> _Part:
        def block(rows: _Rows) -> _Part:
            def loss(theta, rest):
                values = losses.losses(scope.join(theta, rest), rows.images, rows.labels)
                plain = jnp.where(rows.weights > 0, values, 0).sum()
                return (rows.weights * values).sum(), plain

            value_and_gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
            (weighted, plain), gradient = value_and_gradient(theta, scope.rest)
            return _Part(weighted, plain, gradient)

        return batch.sum_over(group, block, _Part(zero, zero, no_gradient), passes)

    total, loss, share = _clean_part(losses, scope, gradient, objective, no_gradient)

    def add_group(index, carry):
        total, loss, norms, sharpness = carry
        group = batch.present_first[index]
        at_w = part(scope.theta, group)
        eps = rule.perturbation(at_w.gradient[0], scope.theta, rho[group], group)
        moved = part(add(scope.theta, eps), group)
        total = jax.tree.map(
            lambda t, d, g: (t + share[group] * d + objective.mix[group] * g).astype(t.dtype),
            total,
            at_w.gradient,
            moved.gradient,
        )
        norms = norms.at[group].set(norm(eps).astype(norms.dtype))
        change = moved.weighted_loss - at_w.weighted_loss
        return total, loss + at_w.plain_loss, norms, sharpness.at[group].set(change)

    num_groups = len(objective.mix)
    norms = jnp.full(num_groups, zero, jnp.promote_types(dtype, jnp.float32))
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
    losses: FactoredLosses, scope: Scope, gradient: Any, objective: Objective, no_gradient
) -> tuple[tuple[Leaves, Leaves], jax.Array | None, jax.Array]:
    """Computes the part of F that is taken at w.

    Returns:
        The gradient of that part as far as passes over the whole batch give it, the batch-mean
        loss if they give that, and (G,) factors by which the groups' gradients at w are added.
    """
    clean, groups, mix = objective
    if clean is None:
        return no_gradient, None, jnp.zeros_like(mix)
    if groups.ndim == 1:
        return no_gradient, None, jnp.where(groups > 0, clean / groups, 0)
    params = scope.join(scope.theta, scope.rest)
    if gradient is not None:
        return scope.split(gradient), losses(params).mean(), -jnp.ones_like(mix)

    def clean_loss(params):
        at_w = losses(params)
        return (clean * at_w.sums).sum(), at_w.mean()

    gradient, loss = jax.grad(clean_loss, has_aux=True)(params)
    return scope.split(gradient), loss, jnp.zeros_like(mix)


class _GroupedImages:
    """A batch with the images of each group side by side.

    Attributes:
        sizes: (G,) images of each group.
        present_first: (G,) the groups, those with images first.
    """

    def __init__(self, losses: FactoredLosses, groups: jax.Array):
        labels, num_groups = losses.labels, len(groups)
        if groups.ndim == 1:
            group_of_class, weight_of_class = jnp.arange(num_groups), groups
        else:
            member = groups > 0
            group_of_class = jnp.where(member.any(0), member.argmax(0), num_groups)
            weight_of_class = groups.sum(0)
        known = (labels >= 0) & (labels < losses.num_classes)
        group = jnp.where(known, group_of_class[labels], num_groups)
        order = jnp.argsort(group, stable=True)
        self._images = jax.tree.map(lambda x: x[order], losses.images)
        self._labels = labels[order]
        self._weights = jnp.where(known, weight_of_class[labels], 0)[order]
        self.sizes = jax.nn.one_hot(group, num_groups, dtype=jnp.int32).sum(0)
        self._starts = jnp.cumsum(self.sizes) - self.sizes
        self.present_first = jnp.argsort(self.sizes == 0, stable=True)

    def sum_over(
        self, group: jax.Array, fn: Callable[[_Rows], Any], zero: Any, passes: Passes
    ) -> Any:
        """Sums a function of rows over the images of a group.

        Args:
            group: the group's number.
            fn: from rows to a pytree of sums over them.
            zero: what `fn` gives of no rows.
            passes: how the rows are taken.
        """
        start, left = self._starts[group], self.sizes[group]
        if isinstance(passes, Capacity):
            total = fn(self._rows(start, passes.images, left))
            # An image left out must not pass for one that had no gradient.
            return jax.tree.map(lambda x: jnp.where(left > passes.images, jnp.nan, x), total)
        total, smallest = zero, passes.sizes[-1]
        for size in passes.sizes:
            num_blocks = -(-left // size) if size == smallest else left // size

            def block(index, total, start=start, left=left, size=size):
                done = index * size
                rows = self._rows(start + done, size, left - done)
                return jax.tree.map(jnp.add, total, fn(rows))

            total = jax.lax.fori_loop(0, num_blocks, block, total)
            start, left = start + num_blocks * size, left - num_blocks * size
        return total

    def _rows(self, start: jax.Array, count: int, limit: jax.Array) -> _Rows:
        """Returns `count` rows from `start` on; those beyond the first `limit` weigh nothing."""
        places = jnp.arange(count)
        # Rows beyond the limit repeat real images, on which any network is finite.
        rows = jnp.minimum(start + places, self._labels.size - 1)
        weights = jnp.where(places < limit, self._weights[rows], 0)
        images = jax.tree.map(lambda x: x[rows], self._images)
        return _Rows(images, self._labels[rows], weights)
