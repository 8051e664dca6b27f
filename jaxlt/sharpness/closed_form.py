"""The one equation in closed form: a group for each class, the classifier alone perturbed."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import ClassLosses, FactoredLosses
from jaxlt.sharpness.equation import ObjectiveFn, Perturbed
from jaxlt.sharpness.perturbation import PerturbationRule, Scope


def perturbs_classifier_alone(losses: FactoredLosses, scope: Scope) -> bool:
    """Tells whether all perturbed leaves belong to the classifier."""
    classifier = _classifier_leaves(losses, scope)
    return all(leaf in classifier for leaf, inside in enumerate(scope.inside) if inside)


def gradient_in_closed_form(
    losses: FactoredLosses,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " classes"],
    rule: PerturbationRule,
) -> Perturbed:
    """Computes the gradient of F in one forward and one backward pass, for any number of classes.

    The result is exact (see `jaxlt.batch.class_gradients`). Beyond the passes it costs
    O(B^2 (D + C)), and no array of a kernel's size for each class or image.
    """
    params, labels = scope.params, losses.labels
    features, backbone_pullback = jax.vjp(lambda p: losses.features_fn(p, losses.images), params)
    classifier, leaves_pullback = jax.vjp(losses.classifier_fn, params)
    logits = classifier.logits(features)
    at_w, loss_pullback = jax.vjp(lambda x: losses.loss(x, labels), logits)
    members = jax.nn.one_hot(labels, losses.num_classes, dtype=at_w.dtype)
    counts = members.sum(0)
    clean, means, mix = jax.tree.map(lambda x: x.astype(counts.dtype), objective_fn(counts))

    def of_images(values: Float[Array, " classes"]) -> Float[Array, " batch"]:
        """Gives each image its class's value; no matrix product, which a GPU would round."""
        return (members * values[None]).sum(1).astype(at_w.dtype)

    def by_class(values: Float[Array, " batch"]) -> Float[Array, " classes"]:
        return (members * values[:, None]).sum(0)

    (residuals,) = loss_pullback(of_images(means))
    gradients = classifier.class_gradients(features, residuals, members @ members.T)

    inside = [[scope.inside[leaf] for leaf in _classifier_leaves(losses, scope)]]
    # Rounding can push a sum of products that is a square below zero.
    squares = jnp.maximum(jax.vmap(by_class, 1, 1)(gradients.squared_norms), 0)
    squares = squares * jnp.array(inside, squares.dtype)
    norms = jnp.sqrt(squares if rule.per_leaf else squares.sum(1, keepdims=True))
    factors = jax.vmap(lambda n, r: rule.factors(n, scope.theta, r))(norms, rho)
    factors = factors * jnp.array(inside, factors.dtype)
    image_factors = jax.vmap(of_images, 1, 1)(factors)

    def objective(classifier, features):
        logits = gradients.perturbed_logits(classifier, features, image_factors)
        perturbed = losses.loss(logits, labels)
        total = (of_images(mix * means) * perturbed).sum()
        if clean is not None:
            unperturbed = losses.loss(classifier.logits(features), labels)
            total += (of_images(clean) * unperturbed).sum()
        return total, perturbed

    head, perturbed = jax.grad(objective, argnums=(0, 1), has_aux=True)(classifier, features)
    return Perturbed(
        gradient=jax.tree.map(jnp.add, *backbone_pullback(head[1]), *leaves_pullback(head[0])),
        loss=ClassLosses(by_class(at_w), counts).mean(),
        perturbation_norm=jnp.sqrt((jnp.square(factors) * squares).sum(1)),
        sharpness=means * by_class(perturbed - at_w),
    )


def _classifier_leaves(losses: FactoredLosses, scope: Scope) -> list[int]:
    """Returns the places of the classifier's leaves among those of the parameters."""
    numbers = jax.tree.unflatten(jax.tree.structure(scope.params), range(len(scope.inside)))
    leaves: list[Any] = jax.tree.leaves(losses.classifier_fn(numbers))
    if not all(isinstance(leaf, int) for leaf in leaves):
        raise ValueError(
            "classifier_fn must return a Linear or Cosine of leaves of params as they are, got "
            f"{', '.join(type(leaf).__name__ for leaf in leaves)} in place of a leaf"
        )
    return leaves
