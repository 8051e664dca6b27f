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

from typing import Any

import jax

from jaxlt.batch.class_losses import ClassLossesFn
from jaxlt.batch.factored_losses import Blocks, Capacity, FactoredLosses
from jaxlt.sharpness.class_wise import gradient_by_chunks, gradient_by_vmap
from jaxlt.sharpness.closed_form import gradient_in_closed_form, perturbs_classifier_alone
from jaxlt.sharpness.in_sequence import gradient_in_sequence
from jaxlt.sharpness.objective import ObjectiveFn, Perturbed
from jaxlt.sharpness.partial_passes import gradient_by_parts
from jaxlt.sharpness.perturbation import Mask, PerturbationRule, Scope


def sharpness_aware_gradient(
    class_losses_fn: ClassLossesFn,
    params: Any,
    gradient: Any,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    *,
    rule: PerturbationRule,
    mask: Mask = None,
    disjoint: bool = False,
) -> Perturbed:
    """Computes the gradient of the module's objective F at `params`, for few groups of classes.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`; deterministic, counts fixed.
        params: pytree of floating arrays, w.
        gradient: gradient of the batch-mean loss at w, like `params`; None where the objective's
            parts do not add up to that loss.
        objective_fn: from the batch's class counts (C,) to its `Objective`.
        rho: (G,) what the rule takes for each group.
        rule: how a group's gradient becomes its perturbation.
        mask: the leaves that are perturbed (theta), all by default.
        disjoint: whether no class is in two groups. Then passes over each group's images pay,
            where `class_losses_fn` is a `FactoredLosses` that allows them.

    Returns:
        The gradient and measurements. Norms are taken in at least 32 bits.

    Raises:
        TypeError: `class_losses_fn` returns no `ClassLosses`.
        ValueError: the mask does not fit `params` or selects nothing.
    """
    scope = Scope(params, mask)
    if disjoint and isinstance(class_losses_fn, FactoredLosses) and class_losses_fn.independent:
        passes = class_losses_fn.passes
        if isinstance(passes, Blocks) or (isinstance(passes, Capacity) and rho.size == 1):
            return gradient_by_parts(
                class_losses_fn, scope, gradient, objective_fn, rho, rule, passes
            )
    return gradient_in_sequence(class_losses_fn, scope, gradient, objective_fn, rho, rule)


def class_wise_gradient(
    class_losses_fn: ClassLossesFn,
    params: Any,
    objective_fn: ObjectiveFn,
    rho: jax.Array,
    *,
    rule: PerturbationRule,
    mask: Mask = None,
    chunk_size: int | None = None,
) -> Perturbed:
    """Computes the gradient of the module's objective F at `params`, with a group for each class.

    With a `FactoredLosses`, it takes the closed form if the classifier alone is perturbed, else
    passes over the images of each class if the losses allow them.

    Args:
        class_losses_fn: see `sharpness_aware_gradient`, as the others.
        params: w.
        objective_fn: see there; its `groups` is (C,).
        rho: (C,).
        rule: see there.
        mask: see there.
        chunk_size: classes perturbed at once where each costs passes of its own. None takes all
            at once where the mask leaves parameters out, and else one after the other.
    """
    scope = Scope(params, mask)
    if isinstance(class_losses_fn, FactoredLosses):
        classifier_alone = perturbs_classifier_alone(class_losses_fn, scope)
        # The closed form lives on the gradients' low rank, which ASAM's scaling by each weight
        # breaks and a random direction does not have.
        if classifier_alone and not rule.adaptive and rule.random_key is None:
            return gradient_in_closed_form(class_losses_fn, scope, objective_fn, rho, rule)
        if class_losses_fn.independent and not classifier_alone:
            passes = class_losses_fn.passes
            blocks = passes if isinstance(passes, Blocks) else Blocks()
            return gradient_by_parts(class_losses_fn, scope, None, objective_fn, rho, rule, blocks)
    if chunk_size is None and scope.rest:
        return gradient_by_vmap(class_losses_fn, scope, objective_fn, rho, rule)
    return gradient_by_chunks(class_losses_fn, scope, objective_fn, rho, rule, chunk_size or 1)
