"""The one equation for few groups of classes and losses of any kind."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import ClassLossesFn
from jaxlt.sharpness.objective import ObjectiveFn, Perturbed, class_sums_fn
from jaxlt.sharpness.perturbation import PerturbationRule, Scope, add, norm


def gradient_in_sequence(
    class_losses_fn: ClassLossesFn,
    scope: Scope,
    gradient: Any,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    rule: PerturbationRule,
) -> Perturbed:
    """Computes the gradient of F for few groups, their perturbed gradients one after the other.

    One linearisation gives the gradients at w of all groups, by one cotangent each. Where the
    objective's parts add up to the batch-mean loss, the clean part costs no cotangent: it is what
    the groups leave of that loss's gradient, which the caller has.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`; deterministic, counts fixed.
        scope: the parameters and which of them are perturbed (theta).
        gradient: gradient of the batch-mean loss at w; None where the objective's parts do not
            add up to that loss.
        objective_fn: from the batch's class counts (C,) to its `Objective`.
        rho: (G,) what the rule takes for each group.
        rule: how a group's gradient becomes its perturbation.

    Returns:
        The gradient and measurements. Norms are taken in at least 32 bits.
    """
    class_sums = class_sums_fn(class_losses_fn, scope)
    sums, pullback, losses = jax.vjp(class_sums, scope.theta, scope.rest, has_aux=True)
    clean, groups, mix = objective_fn(losses.counts)
    groups = groups.astype(sums.dtype)
    mean_gradient = None if gradient is None else scope.split(gradient)
    if clean is None and mean_gradient is not None and len(groups) == 1:
        directions = [mean_gradient]
    else:
        # Never by subtraction: a group without gradient must have direction 0, not rounding's.
        directions = [pullback(weights) for weights in groups]
    gradients, norms, sharpness, loss = [], [], [], jnp.zeros([])
    if clean is not None and mean_gradient is None:
        gradients.append(pullback(clean.astype(sums.dtype)))
    elif clean is not None:
        gradients.append(jax.tree.map(lambda x, *d: x - sum(d), mean_gradient, *directions))
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
            moved = [w + 0 * loss.astype(w.dtype) for w in moved]
        loss, gradient = jax.value_and_grad(group_loss, argnums=(0, 1))(moved, scope.rest)
        gradients.append(
            jax.tree.map(lambda x, factor=group_mix: (factor * x).astype(x.dtype), gradient)
        )
        norms.append(norm(eps))
        sharpness.append(loss - (weights * sums).sum())
    total = jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *gradients)
    return Perturbed(scope.join(*total), losses.mean(), jnp.stack(norms), jnp.stack(sharpness))
