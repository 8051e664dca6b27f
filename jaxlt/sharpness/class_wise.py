"""The one equation with a group for each class, by `vmap` over classes."""

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import ClassLossesFn
from jaxlt.sharpness.objective import Objective, ObjectiveFn, Perturbed, class_sums_fn
from jaxlt.sharpness.perturbation import PerturbationRule, Scope, add, norm


def gradient_by_vmap(
    class_losses_fn: ClassLossesFn,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    rule: PerturbationRule,
) -> Perturbed:
    """Computes the gradient of F with all classes perturbed at once under one `vmap`.

    Leaves outside the scope carry no class axis. So what depends on them alone, such as a network
    below its classifier, is computed once.

    Args:
        class_losses_fn: see `gradient_in_sequence`, as the others.
        scope: see there.
        objective_fn: see there; its objective has one group a class.
        rho: see there.
        rule: see there.
    """
    class_sums = class_sums_fn(class_losses_fn, scope)
    theta, rest = scope.theta, scope.rest
    # Differentiating theta alone keeps the trunk out of the vmapped pullback.
    sums, pullback, losses = jax.vjp(lambda t: class_sums(t, rest), theta, has_aux=True)
    clean, means, mix = _cast(objective_fn(losses.counts), sums.dtype)
    eps = jax.vmap(
        lambda weights, rho, group: rule.perturbation(pullback(weights)[0], theta, rho, group)
    )(jnp.diag(means), rho, jnp.arange(sums.size))
    norms = jax.vmap(norm)(eps)
    weights = jnp.diag(mix * means)
    if clean is not None:
        # As one more group, unperturbed, it shares the others' only pass through the trunk.
        weights = jnp.concatenate([weights, clean[None]])
        eps = [jnp.concatenate([e, jnp.zeros_like(e[:1])]) for e in eps]

    def objective(theta, rest):
        perturbed = jax.vmap(lambda e: class_sums(add(theta, e), rest)[0])(eps)
        return (weights * perturbed).sum(), jnp.diagonal(perturbed)

    gradient, perturbed = jax.grad(objective, argnums=(0, 1), has_aux=True)(theta, rest)
    return Perturbed(scope.join(*gradient), losses.mean(), norms, means * (perturbed - sums))


def gradient_by_chunks(
    class_losses_fn: ClassLossesFn,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    rule: PerturbationRule,
    chunk_size: int,
) -> Perturbed:
    """Computes the gradient of F with the batch's classes perturbed `chunk_size` at a time.

    A class that is absent costs nothing. Memory holds the perturbed parameters and activations of
    `chunk_size` classes.

    Args:
        class_losses_fn: see `gradient_by_vmap`, as the others.
        scope: see there.
        objective_fn: see there.
        rho: see there.
        rule: see there.
        chunk_size: classes perturbed at once.
    """
    class_sums = class_sums_fn(class_losses_fn, scope)
    sums, pullback, losses = jax.vjp(class_sums, scope.theta, scope.rest, has_aux=True)
    clean, means, mix = _cast(objective_fn(losses.counts), sums.dtype)
    classes = _present_first(losses.counts, chunk_size)
    num_chunks = -(-(losses.counts > 0).sum() // chunk_size)

    def class_gradient(label):
        weights = means[label] * jax.nn.one_hot(label, sums.size, dtype=sums.dtype)
        eps = rule.perturbation(pullback(weights)[0], scope.theta, rho[label], label)

        def class_mean(theta, rest):
            return (weights * class_sums(theta, rest)[0]).sum()

        moved = add(scope.theta, eps)
        loss, gradient = jax.value_and_grad(class_mean, argnums=(0, 1))(moved, scope.rest)
        return gradient, norm(eps), loss - (weights * sums).sum()

    def chunk(index, carry):
        total, norms, sharpness = carry
        labels = jax.lax.dynamic_slice(classes, [index * chunk_size], [chunk_size])
        gradient, chunk_norms, chunk_sharpness = jax.vmap(class_gradient)(labels)
        # The last chunk is filled up with a label out of range, which weighs nothing.
        weights = mix.at[labels].get(mode="fill", fill_value=0)
        # By default GPUs round the factors of a product to 10 bits.
        total = jax.tree.map(
            lambda t, g: t + jnp.tensordot(weights, g, 1, precision="highest"), total, gradient
        )
        norms = norms.at[labels].set(chunk_norms.astype(norms.dtype), mode="drop")
        return total, norms, sharpness.at[labels].set(chunk_sharpness, mode="drop")

    if clean is None:
        start = jax.tree.map(jnp.zeros_like, (scope.theta, scope.rest))
    else:
        start = pullback(clean)
    norms = jnp.zeros_like(sums, dtype=jnp.promote_types(sums.dtype, jnp.float32))
    carry = (start, norms, jnp.zeros_like(sums))
    total, norms, sharpness = jax.lax.fori_loop(0, num_chunks, chunk, carry)
    return Perturbed(scope.join(*total), losses.mean(), norms, sharpness)


def _present_first(counts: jax.Array, multiple: int) -> jax.Array:
    """Returns the class labels, those with images first, padded to a multiple by C."""
    order = jnp.argsort(counts == 0, stable=True)
    return jnp.pad(order, (0, -counts.size % multiple), constant_values=counts.size)


def _cast(objective: Objective, dtype) -> Objective:
    return jax.tree.map(lambda x: x.astype(dtype), objective)
