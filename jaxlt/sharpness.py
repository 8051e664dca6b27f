"""The one equation behind SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM.

Each method is the gradient, at parameters w, of

    F(w) = sum_c clean[c] * S_c(w) + sum_g mix[g] * sum_c groups[g, c] * S_c(w + eps_g)
    eps_g = radius_g * d_g / ||d_g||,   d_g = gradient of sum_c groups[g, c] * S_c at w

where S_c is the sum of the batch's losses of class c and eps_g is a constant. With
`groups[g, c] = A[g, c] / B` and `clean` the share of each class that no group takes, this is
the batch-mean loss plus, for each group, the change of its loss from w to w + eps_g. A method
chooses the three arrays and the radii; nothing here knows classes by name, networks or images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxlt.class_losses import ClassLosses

ClassLossesFn: TypeAlias = Callable[[Any], ClassLosses]
Mask: TypeAlias = Any  # a pytree prefix of bools, or a callable from params to one
Leaves: TypeAlias = list[jax.Array]


class Objective(NamedTuple):
    """Weights of the class sums in the objective of one batch.

    Attributes:
        clean: (C,) weights of the sums taken at w, or None where nothing is.
        groups: (G, C) weights of the class sums in the loss of each group.
        mix: (G,) weights of the groups' losses, taken at their own perturbed parameters.
    """

    clean: jax.Array | None
    groups: jax.Array
    mix: jax.Array


class Perturbed(NamedTuple):
    """A sharpness-aware gradient and what was measured on the way.

    Attributes:
        gradient: pytree like the parameters.
        perturbation_norm: (G,) `||eps_g||`.
        sharpness: (G,) group loss at `w + eps_g` minus group loss at w.
    """

    gradient: Any
    perturbation_norm: jax.Array
    sharpness: jax.Array


RadiusFn: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]


def constant_radius(
    rho: jax.Array, norms: jax.Array, theta_norm: jax.Array, size: int
) -> jax.Array:
    """Radius of SAM and of all methods whose radius does not depend on the gradient."""
    del theta_norm, size
    return jnp.broadcast_to(rho, norms.shape)


def sharpness_aware_gradient(
    class_losses_fn: ClassLossesFn,
    params: Any,
    gradient: Any,
    objective_fn: Callable[[jax.Array], Objective],
    rho: jax.Array,
    *,
    radius_fn: RadiusFn = constant_radius,
    mask: Mask = None,
    adaptive: bool = False,
    per_leaf: bool = False,
    vectorize: bool = False,
) -> Perturbed:
    """Gradient of the module's objective F at `params`.

    The gradients at w of the groups come from one linearisation with one cotangent each. Where the
    objective's parts add up to the batch-mean loss, the clean part costs no cotangent: it is what
    the groups leave of the mean's gradient, which the caller has. The perturbed gradients follow
    one after the other, or all under one `vmap`, in which leaves outside the mask carry no group
    axis: what depends on them alone is computed once for all groups.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`; deterministic, counts fixed.
        params: pytree of floating arrays, w.
        gradient: of the batch-mean loss at w, like `params`; None where the objective's parts do
            not add up to that loss. Not read with `vectorize`.
        objective_fn: from the batch's class counts (C,) to its `Objective`.
        rho: (G,) what `radius_fn` takes for each group.
        radius_fn: from one group's rho (), its gradient norms (L,), `||theta||` () and the number
            of scalars in theta to radii (L,); L is 1, or the number of perturbed leaves with
            `per_leaf`. A direction of norm 0 comes as an infinite norm and gives no perturbation.
        mask: the leaves that are perturbed (theta), all by default.
        adaptive: ASAM (Kwon et al., ICML 2021): d is scaled by |w| elementwise before its norm is
            taken and once more in eps, so that a radius is relative to each weight.
        per_leaf: one norm and one radius a leaf in place of one over all leaves.
        vectorize: perturbed gradients under `vmap` rather than in sequence.

    Returns:
        The gradient and measurements. Norms are taken in at least 32 bits.

    Raises:
        TypeError: `class_losses_fn` returns no `ClassLosses`.
        ValueError: the mask does not fit `params` or selects nothing.
    """
    scope = _Scope(params, mask)

    def class_sums(theta: Leaves, rest: Leaves) -> tuple[jax.Array, jax.Array]:
        losses = class_losses_fn(scope.join(theta, rest))
        if not isinstance(losses, ClassLosses):
            raise TypeError(
                "class_losses_fn must return jaxlt.ClassLosses (see jaxlt.class_losses), got "
                f"{type(losses).__name__}"
            )
        if losses.sums.ndim != 1 or losses.sums.shape != losses.counts.shape:
            raise ValueError(
                "class_losses_fn must return sums and counts of shape (C,), got sums "
                f"{losses.sums.shape} and counts {losses.counts.shape}"
            )
        return losses.sums, losses.counts.astype(jnp.promote_types(losses.sums.dtype, jnp.float32))

    def perturbation(direction: Leaves, rho: jax.Array) -> Leaves:
        return _perturbation(direction, scope.parts[0], rho, radius_fn, adaptive, per_leaf)

    if vectorize:
        result = _gradient_by_vmap(class_sums, *scope.parts, objective_fn, rho, perturbation)
    else:
        mean_gradient = None if gradient is None else scope.split(gradient)
        result = _gradient_in_sequence(
            class_sums, *scope.parts, mean_gradient, objective_fn, rho, perturbation
        )
    return result._replace(gradient=scope.join(*result.gradient))


def _gradient_in_sequence(
    class_sums, theta, rest, mean_gradient, objective_fn, rho, perturbation
) -> Perturbed:
    sums, pullback, counts = jax.vjp(class_sums, theta, rest, has_aux=True)
    clean, groups, mix = objective_fn(counts)
    groups = groups.astype(sums.dtype)
    if clean is None and mean_gradient is not None and len(groups) == 1:
        directions = [mean_gradient]
    else:
        # Never by subtraction: a group without gradient must have direction 0, not rounding's.
        directions = [pullback(weights) for weights in groups]
    gradients, norms, sharpness = [], [], []
    if clean is not None and mean_gradient is None:
        gradients.append(pullback(clean.astype(sums.dtype)))
    elif clean is not None:
        gradients.append(jax.tree.map(lambda x, *d: x - sum(d), mean_gradient, *directions))
    for weights, direction, group_rho, group_mix in zip(groups, directions, rho, mix, strict=True):

        def group_loss(theta, rest, weights=weights):
            return (weights * class_sums(theta, rest)[0]).sum()

        eps = jax.lax.stop_gradient(perturbation(direction[0], group_rho))
        loss, gradient = jax.value_and_grad(group_loss, argnums=(0, 1))(_add(theta, eps), rest)
        gradients.append(
            jax.tree.map(lambda x, factor=group_mix: (factor * x).astype(x.dtype), gradient)
        )
        norms.append(norm(eps))
        sharpness.append(loss - (weights * sums).sum())
    total = jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *gradients)
    return Perturbed(total, jnp.stack(norms), jnp.stack(sharpness))


def _gradient_by_vmap(class_sums, theta, rest, objective_fn, rho, perturbation) -> Perturbed:
    # Differentiating theta alone keeps the trunk out of the vmapped pullback.
    sums, pullback, counts = jax.vjp(lambda t: class_sums(t, rest), theta, has_aux=True)
    clean, groups, mix = objective_fn(counts)
    groups = groups.astype(sums.dtype)
    eps = jax.vmap(lambda weights, rho: perturbation(pullback(weights)[0], rho))(groups, rho)
    eps = jax.lax.stop_gradient(eps)
    norms = jax.vmap(norm)(eps)
    weights = mix[:, None] * groups
    if clean is not None:
        # As one more group, unperturbed, it shares the others' only pass through the trunk.
        weights = jnp.concatenate([weights, clean[None]])
        eps = [jnp.concatenate([e, jnp.zeros_like(e[:1])]) for e in eps]

    def objective(theta, rest):
        perturbed = jax.vmap(lambda e: class_sums(_add(theta, e), rest)[0])(eps)
        return (weights * perturbed).sum(), perturbed

    gradient, perturbed = jax.grad(objective, argnums=(0, 1), has_aux=True)(theta, rest)
    group_losses = (groups * perturbed[: len(groups)]).sum(axis=1)
    return Perturbed(gradient, norms, group_losses - (groups * sums[None]).sum(axis=1))


def _perturbation(
    direction: Leaves,
    theta: Leaves,
    rho: jax.Array,
    radius_fn: RadiusFn,
    adaptive: bool,
    per_leaf: bool,
) -> Leaves:
    weight_scale = [jnp.abs(w) for w in theta] if adaptive else [1.0] * len(theta)
    direction = [s * d for s, d in zip(weight_scale, direction, strict=True)]
    norms = jnp.stack([norm(d) for d in direction] if per_leaf else [norm(direction)])
    # A group without gradient has no direction: an infinite norm makes its perturbation zero.
    norms = jnp.where(norms > 0, norms, jnp.inf)
    radii = radius_fn(rho, norms, norm(theta), sum(w.size for w in theta))
    factors = jnp.broadcast_to(radii / norms, (len(theta),))
    return [
        (f * s * d).astype(w.dtype)
        for f, s, d, w in zip(factors, weight_scale, direction, theta, strict=True)
    ]


def norm(tree: Any) -> jax.Array:
    """Euclidean norm over all leaves, accumulated in at least 32 bits, a scalar."""
    squares = [
        jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))).sum()
        for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def _add(theta: Leaves, eps: Leaves) -> Leaves:
    return [w + e for w, e in zip(theta, eps, strict=True)]


class _Scope:
    """Splits trees like the parameters into perturbed leaves (theta) and the rest."""

    def __init__(self, params: Any, mask: Mask):
        self._treedef = jax.tree.structure(params)
        self._inside = resolve_mask(params, mask)
        self.parts = self.split(params)

    def split(self, tree: Any) -> tuple[Leaves, Leaves]:
        leaves = list(zip(jax.tree.leaves(tree), self._inside, strict=True))
        return [x for x, inside in leaves if inside], [x for x, inside in leaves if not inside]

    def join(self, theta: Leaves, rest: Leaves) -> Any:
        inside, outside = iter(theta), iter(rest)
        return jax.tree.unflatten(
            self._treedef, [next(inside) if chosen else next(outside) for chosen in self._inside]
        )


def resolve_mask(params: Any, mask: Mask) -> list[bool]:
    """Returns, for each leaf of `params` in flattening order, whether the mask selects it.

    Raises:
        ValueError: the mask is no prefix of `params`, holds something other than bools, or
            selects no leaf.
    """
    tree = mask(params) if callable(mask) else mask
    if tree is None:
        return [True] * len(jax.tree.leaves(params))
    try:
        full = jax.tree.map(lambda chosen, sub: jax.tree.map(lambda _: chosen, sub), tree, params)
    except ValueError as error:
        raise ValueError(
            f"mask must be a prefix of the params pytree, got {jax.tree.structure(tree)} for "
            f"params {jax.tree.structure(params)}"
        ) from error
    chosen = jax.tree.leaves(full)
    if not all(jnp.issubdtype(jnp.result_type(v), jnp.bool_) for v in chosen):
        raise ValueError(f"mask must hold bools, got {sorted({type(v).__name__ for v in chosen})}")
    if not any(chosen):
        raise ValueError("mask must select at least one leaf of params, got False for every leaf")
    return [bool(value) for value in chosen]
