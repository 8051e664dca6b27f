"""The one equation in closed form: a group for each class, the classifier alone perturbed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr
from jax.interpreters import partial_eval
from jaxtyping import Array, Float

from jaxlt.batch.class_gradients import class_gradients, on_every_device
from jaxlt.batch.class_losses import ClassLosses, FactoredLosses, Linear
from jaxlt.batch.cosine import Cosine
from jaxlt.batch.known_losses import KnownLosses
from jaxlt.batch.precision import at_least_32_bits, powers_of_two
from jaxlt.sharpness.equation import ObjectiveFn, Perturbed
from jaxlt.sharpness.perturbation import Leaves, PerturbationRule, Scope, norm


def theta_moves_features(losses: FactoredLosses, scope: Scope) -> bool:
    """Tells whether the features depend on a perturbed leaf, read off their jaxpr."""

    def features(theta: Leaves, rest: Leaves) -> Array:
        return losses.features_and_aux(scope.join(theta, rest), losses.images)[0]

    program = jax.make_jaxpr(features)(scope.theta, scope.rest).jaxpr
    return _theta_reaches(program, program.outvars, scope)


def has_closed_form(losses: FactoredLosses, scope: Scope, rule: PerturbationRule) -> bool:
    """Tells whether `gradient_in_closed_form` holds where theta does not move the features.

    All of theta must be real leaves of the classifier as they are, and none of its other leaves
    may be computed from theta.
    """
    # It lives on the gradients' low rank, which ASAM's scaling by each weight breaks and a random
    # direction does not have.
    if rule.adaptive or rule.random_key is not None:
        return False
    program = _classifier_program(losses, scope)
    theta: list[Any] = program.invars[: len(scope.theta)]
    leaves: list[Any] = program.outvars
    if not all(jnp.issubdtype(leaf.aval.dtype, jnp.floating) for leaf in leaves):
        return False
    others = [leaf for leaf in leaves if not _among(leaf, theta)]
    as_they_are = all(_among(leaf, leaves) for leaf in theta)
    return as_they_are and not _theta_reaches(program, others, scope)


def gradient_in_closed_form(
    losses: FactoredLosses,
    known: KnownLosses | None,
    scope: Scope,
    objective_fn: ObjectiveFn,
    rho: Float[Array, " classes"],
    rule: PerturbationRule,
) -> Perturbed:
    """Computes the gradient of F in one forward and one backward pass, for any number of classes.

    The result is exact (see `jaxlt.batch.class_gradients`). Beyond the passes it costs
    O(B^2 (D + C)), and no array of a kernel's size for each class or image. Residuals are scaled
    by a power of two for each class, so that no square of theirs is out of range. The pass through
    the backbone is that of `known`, if it is at these parameters.
    """
    labels, leaves = losses.labels, (scope.theta, scope.rest)
    features, backbone_pullback = _features_at(losses, known, scope)
    classifier, leaves_pullback = jax.vjp(
        lambda *leaves: losses.classifier_fn(scope.join(*leaves)), *leaves
    )
    logits = losses.logits(classifier, features, labels)
    at_w, loss_pullback = jax.vjp(lambda x: losses.loss(x, labels), logits)
    members = jax.nn.one_hot(labels, losses.num_classes, dtype=at_w.dtype)
    counts = members.sum(0)
    clean, means, mix = jax.tree.map(lambda x: x.astype(counts.dtype), objective_fn(counts))

    def of_images(values: Float[Array, " classes"]) -> Float[Array, " batch"]:
        """Gives each image its class's value; no matrix product, which a GPU would round."""
        return (members * values[None].astype(members.dtype)).sum(1)

    def by_class(values: Float[Array, " batch"]) -> Float[Array, " classes"]:
        return (members * values[:, None]).sum(0)

    residuals = at_least_32_bits(loss_pullback(of_images(means))[0])
    largest = members.astype(residuals.dtype) * jnp.abs(residuals).max(1)[:, None]
    shrink, scale = powers_of_two(largest.max(0))
    residuals = residuals * (members.astype(shrink.dtype) * shrink[None]).sum(1, keepdims=True)
    pairs = (members @ on_every_device(members).T).astype(residuals.dtype)
    constants = on_every_device(features.astype(residuals.dtype)), on_every_device(residuals)
    gradients = class_gradients(classifier, *constants, pairs)

    program = _classifier_program(losses, scope)
    inside = [[_among(leaf, program.invars[: len(scope.theta)]) for leaf in program.outvars]]
    # Rounding can push a sum of products that is a square below zero.
    squares = jnp.maximum(jax.vmap(by_class, 1, 1)(gradients.squared_norms), 0)
    squares = squares * jnp.array(inside, squares.dtype)
    lengths = jnp.sqrt(squares if rule.per_leaf else squares.sum(1, keepdims=True))
    # As in the loop over classes: in the precision of the leaves.
    lengths = lengths.astype(norm(scope.theta).dtype)
    norms = lengths * scale[:, None].astype(lengths.dtype)
    factors = jax.vmap(lambda n, r, d: rule.factors(n, scope.theta, r, d))(norms, rho, lengths)
    factors = factors * jnp.array(inside, factors.dtype)
    image_factors = jax.vmap(of_images, 1, 1)(factors).astype(residuals.dtype)

    def objective(classifier, features):
        logits = gradients.perturbed_logits(classifier, features, image_factors)
        perturbed = losses.loss(logits, labels)
        total = (of_images(mix * means) * perturbed).sum()
        if clean is not None:
            unperturbed = losses.loss(classifier.logits(features), labels)
            total += (of_images(clean) * unperturbed).sum()
        return total, perturbed

    head, perturbed = jax.grad(objective, argnums=(0, 1), has_aux=True)(classifier, features)
    gradient = jax.tree.map(jnp.add, backbone_pullback(head[1]), leaves_pullback(head[0]))
    return Perturbed(
        gradient=scope.join(*gradient),
        loss=ClassLosses(by_class(at_w), counts).mean(),
        perturbation_norm=jax.vmap(norm)(factors * jnp.sqrt(squares).astype(factors.dtype)),
        sharpness=means * by_class(perturbed - at_w),
    )


def _features_at(
    losses: FactoredLosses, known: KnownLosses | None, scope: Scope
) -> tuple[Array, Callable[[Array], tuple[Leaves, Leaves]]]:
    """Returns the features and their pullback to (theta, rest)."""
    if known is not None and known.of_features is not None and known.is_at(scope.params):
        at_w, pullback = known.of_features
        return at_w, lambda gradient: scope.split(pullback(gradient))

    def features(*leaves: Leaves) -> Array:
        return losses.features_and_aux(scope.join(*leaves), losses.images)[0]

    return jax.vjp(features, scope.theta, scope.rest)


def _classifier_program(losses: FactoredLosses, scope: Scope) -> Jaxpr:
    """Returns the program from theta and the other leaves to the classifier's."""

    def classifier(theta: Leaves, rest: Leaves) -> Linear | Cosine:
        return losses.classifier_fn(scope.join(theta, rest))

    return jax.make_jaxpr(classifier)(scope.theta, scope.rest).jaxpr


def _theta_reaches(program: Jaxpr, outputs: list[Any], scope: Scope) -> bool:
    """Tells whether outputs of a program depend on theta, the first of its inputs."""
    _, used = partial_eval.dce_jaxpr(program, [_among(v, outputs) for v in program.outvars])
    return any(used[: len(scope.theta)])


def _among(variable: Any, variables: list[Any]) -> bool:
    return any(variable is other for other in variables)
