"""The one equation with a group for each class, as in CC-SAM."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxlt.batch.argument_checks import check_whole
from jaxlt.batch.class_losses import ClassLossesFn, FactoredLosses
from jaxlt.batch.known_losses import KnownLosses
from jaxlt.batch.passes import Blocks
from jaxlt.batch.precision import at_least_32_bits, wide
from jaxlt.sharpness.closed_form import (
    gradient_in_closed_form,
    has_closed_form,
    theta_moves_features,
)
from jaxlt.sharpness.equation import ObjectiveFn, Perturbed, class_sums_fn, pass_at_w
from jaxlt.sharpness.partial_passes import gradient_by_parts
from jaxlt.sharpness.perturbation import Mask, PerturbationRule, Scope, add, norm


def checked_chunk_size(chunk_size: int, each_class: bool) -> int:
    """Returns a user's number of classes that are perturbed at once.

    Raises:
        ValueError: it is traced, or no whole number above 0, or `each_class`, whether each class is
            a group, is False.
    """
    if isinstance(chunk_size, Tracer):
        raise ValueError(
            "chunk_size must be known when the step is traced, got a traced number: name it among "
            "the static_args of optax.inject_hyperparams"
        )
    if not each_class:
        raise ValueError(f"chunk_size must be None where no class is a group, got {chunk_size}")
    check_whole(1, chunk_size=chunk_size)
    return int(chunk_size)


def class_wise_gradient(
    class_losses_fn: ClassLossesFn,
    params: Any,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " classes"],
    *,
    rule: PerturbationRule,
    mask: Mask = None,
    chunk_size: int | None = None,
) -> Perturbed:
    """Computes the gradient of the module's objective F at `params`, with a group for each class.

    With a `FactoredLosses`, it takes the closed form where that holds, else passes over the images
    of each class where the features move and may be taken in parts. Arguments are those of
    `sharpness_aware_gradient`, and `chunk_size`: classes perturbed at once where each costs passes
    of its own. None takes all at once where the mask leaves parameters out, and else one after the
    other.
    """
    scope = Scope(params, mask)
    known = class_losses_fn if isinstance(class_losses_fn, KnownLosses) else None
    losses_fn = class_losses_fn if known is None else known.function
    if isinstance(losses_fn, FactoredLosses):
        features_move = theta_moves_features(losses_fn, scope)
        if not features_move and has_closed_form(losses_fn, scope, rule):
            return gradient_in_closed_form(losses_fn, known, scope, objective_fn, rho, rule)
        if features_move and losses_fn.in_parts:
            blocks = losses_fn.passes if isinstance(losses_fn.passes, Blocks) else Blocks()
            return gradient_by_parts(losses_fn, scope, None, objective_fn, rho, rule, blocks)
    if chunk_size is None and scope.rest:
        return _gradient_by_vmap(class_losses_fn, scope, objective_fn, rho, rule)
    return _gradient_by_chunks(class_losses_fn, scope, objective_fn, rho, rule, chunk_size or 1)


def _gradient_by_vmap(
    class_losses_fn: ClassLossesFn,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " classes"],
    rule: PerturbationRule,
) -> Perturbed:
    """Computes the gradient of F with all classes perturbed at once.

    What depends on leaves outside the scope alone, such as a network's backbone, is computed once.
    """
    class_sums = class_sums_fn(class_losses_fn, scope)
    theta, rest = scope.theta, scope.rest
    # Differentiating theta alone keeps the backbone out of the vmapped pullback.
    sums, pullback, losses = jax.vjp(lambda t: class_sums(t, rest), theta, has_aux=True)
    objective = objective_fn(losses.counts)
    clean, means, mix = jax.tree.map(lambda x: x.astype(sums.dtype), objective)
    eps = jax.vmap(
        lambda weights, rho, group: rule.perturbation(pullback(weights)[0], theta, rho, group)
    )(jnp.diag(means), rho, jnp.arange(sums.size))
    norms = jax.vmap(norm)(eps)
    weights = jnp.diag(mix * means)
    if clean is not None:
        # As one more group, unperturbed, it shares the others' only pass through the backbone.
        weights = jnp.concatenate([weights, clean[None]])
        eps = [jnp.concatenate([e, jnp.zeros_like(e[:1])]) for e in eps]

    def perturbed_loss(theta, rest):
        perturbed = jax.vmap(lambda e: class_sums(add(theta, e), rest)[0])(eps)
        return (weights * perturbed).sum(), jnp.diagonal(perturbed)

    gradient, perturbed = jax.grad(perturbed_loss, argnums=(0, 1), has_aux=True)(theta, rest)
    return Perturbed(scope.join(*gradient), losses.mean(), norms, means * (perturbed - sums))


def _gradient_by_chunks(
    class_losses_fn: ClassLossesFn,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " classes"],
    rule: PerturbationRule,
    chunk_size: int,
) -> Perturbed:
    """Computes the gradient of F with the batch's classes perturbed `chunk_size` at a time.

    An absent class costs nothing. Memory holds parameters and activations of a chunk's classes.
    """
    class_sums = class_sums_fn(class_losses_fn, scope)
    sums, pullback, losses = pass_at_w(class_losses_fn, scope)
    objective = objective_fn(losses.counts)
    clean, means, mix = jax.tree.map(lambda x: x.astype(sums.dtype), objective)
    # Those with images first, and filled up to a multiple of the chunk by a label out of range,
    # which weighs nothing.
    classes = jnp.argsort(losses.counts == 0, stable=True)
    classes = jnp.pad(classes, (0, -sums.size % chunk_size), constant_values=sums.size)
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
        weights = mix.at[labels].get(mode="fill", fill_value=0)

        def added(total, gradient):
            factors, gradient = weights.astype(total.dtype), gradient.astype(total.dtype)
            # By default GPUs round the factors of a product to 10 bits.
            return total + jnp.tensordot(factors, gradient, 1, precision="highest")

        total = jax.tree.map(added, total, gradient)
        norms = norms.at[labels].set(chunk_norms.astype(norms.dtype), mode="drop")
        return total, norms, sharpness.at[labels].set(chunk_sharpness, mode="drop")

    if clean is None:
        start = jax.tree.map(jnp.zeros_like, (scope.theta, scope.rest))
    else:
        start = pullback(clean)
    # Many classes' gradients are lost in a sum of 16 bits.
    start = jax.tree.map(at_least_32_bits, start)
    norms = jnp.zeros_like(sums, dtype=wide(sums.dtype))
    carry = (start, norms, jnp.zeros_like(sums))
    total, norms, sharpness = jax.lax.fori_loop(0, num_chunks, chunk, carry)
    return Perturbed(scope.join(*total), losses.mean(), norms, sharpness)
