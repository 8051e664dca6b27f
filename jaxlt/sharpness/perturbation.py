"""Perturbations of parameters: which leaves move, in which direction, how far."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from jaxlt.batch.precision import at_least_32_bits, powers_of_two, wide

Mask: TypeAlias = Any  # a pytree prefix of bools, or a callable from params to one; None for all
Leaves: TypeAlias = list[Any]  # arrays, NumPy's where the parameters are
RadiusFn: TypeAlias = Callable[
    [Float[Array, ""], Float[Array, " leaves"], Float[Array, ""], int], Float[Array, " leaves"]
]


def constant_radius(
    rho: Float[Array, ""], norms: Float[Array, " leaves"], *_: Array | int
) -> Float[Array, " leaves"]:
    """Returns rho as it is: the radius of every method but CC-SAM."""
    return jnp.broadcast_to(rho, norms.shape)


class PerturbationRule(NamedTuple):
    """How a group's gradient d becomes its perturbation.

    Attributes:
        radius_fn: from one group's rho, its gradient norms, `||theta||` and the number of scalars
            in theta to radii. The norms are one, or with `per_leaf` one for each perturbed leaf.
            A gradient of norm 0 comes as an infinite norm.
        adaptive: whether |w| scales d elementwise, before the norm and once more in eps (ASAM).
        per_leaf: whether each leaf has its own norm and radius in place of one over all leaves.
        random_key: None to follow d. A key draws a standard normal direction from the key and the
            group's number instead; d's norms still go to `radius_fn`.
    """

    radius_fn: RadiusFn = constant_radius
    adaptive: bool = False
    per_leaf: bool = False
    random_key: PRNGKeyArray | None = None

    def perturbation(
        self, gradient: Leaves, theta: Leaves, rho: Float[Array, ""], group: Int[ArrayLike, ""]
    ) -> Leaves:
        """Returns a group's eps, a constant to whatever differentiates it."""
        dtype = _common_dtype([*theta, *gradient])
        direction = [at_least_32_bits(d).astype(dtype) for d in gradient]
        weight_scale = [jnp.abs(w).astype(dtype) if self.adaptive else 1.0 for w in theta]
        # The quotient of radius and length then stays in the range of floats.
        shares = [[d] for d in direction] if self.per_leaf else [direction]
        shrink, scale = jax.tree.map(lambda *x: jnp.stack(x), *map(_scaling, shares))
        shrunk = jnp.broadcast_to(shrink, (len(theta),))
        direction = [s * (p * d) for s, p, d in zip(weight_scale, shrunk, direction, strict=True)]
        lengths = self._norms(direction)
        norms = scale * lengths
        if self.random_key is not None:
            drawn = standard_normal(jax.random.fold_in(self.random_key, group), theta)
            direction = [s * d.astype(dtype) for s, d in zip(weight_scale, drawn, strict=True)]
            lengths = self._norms(direction)
        factors = jnp.broadcast_to(self.factors(norms, theta, rho, lengths), (len(theta),))
        return [
            jax.lax.stop_gradient((f * s * d).astype(w.dtype))
            for f, s, d, w in zip(factors, weight_scale, direction, theta, strict=True)
        ]

    def factors(
        self,
        norms: Float[Array, " leaves"],
        theta: Leaves,
        rho: Float[Array, ""],
        lengths: Float[Array, " leaves"] | None = None,
    ) -> Float[Array, " leaves"]:
        """Returns radius over length, by which each direction is multiplied.

        `norms` give the radius. `lengths` are the directions' own norms, `norms` where None.
        """
        # A group without gradient has no direction: an infinite norm makes its perturbation zero.
        norms = jnp.where(norms > 0, norms, jnp.inf)
        lengths = norms if lengths is None else jnp.where(lengths > 0, lengths, jnp.inf)
        rho, theta_norm = rho.astype(norms.dtype), norm(theta).astype(norms.dtype)
        return self.radius_fn(rho, norms, theta_norm, sum(w.size for w in theta)) / lengths

    def _norms(self, direction: Leaves) -> Array:
        length = norm if self.adaptive else _norm_near_one
        return jnp.stack([length([d]) for d in direction] if self.per_leaf else [length(direction)])


def standard_normal(key: PRNGKeyArray, like: Leaves) -> Leaves:
    """Draws independent standard normal numbers in the shapes of leaves, in at least 32 bits."""
    keys = jax.random.split(key, len(like))
    return [jax.random.normal(k, w.shape, wide(w.dtype)) for k, w in zip(keys, like, strict=True)]


def norm(tree: Any) -> Float[Array, ""]:
    """Returns the Euclidean norm over all leaves, in their widest type or 32 bits.

    No square leaves the range of floats, however small or large the entries are.
    """
    leaves = jax.tree.leaves(tree)
    dtype = _common_dtype(leaves)
    shrink, scale = _scaling(leaves)
    return scale * _norm_near_one([shrink * at_least_32_bits(x).astype(dtype) for x in leaves])


def inner(one: Leaves, other: Leaves) -> Float[Array, ""]:
    """Returns the scalar product over all leaves, accumulated in at least 32 bits."""
    pairs = zip(map(at_least_32_bits, one), map(at_least_32_bits, other), strict=True)
    # Multiply and sum: by default GPUs round the factors of a matrix product.
    parts = [(a * b).sum() for a, b in pairs]
    dtype = _common_dtype(parts)
    return sum((part.astype(dtype) for part in parts[1:]), parts[0].astype(dtype))


def _norm_near_one(leaves: Leaves) -> Float[Array, ""]:
    """Returns the norm of leaves of one type whose squares are in range, at less cost."""
    squares = [jnp.square(x).sum() for x in leaves]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def _scaling(leaves: Leaves) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns 1 / s and s, the power of two nearest to the largest modulus."""
    dtype = _common_dtype(leaves)
    return powers_of_two(jnp.stack([jnp.abs(x).max(initial=0).astype(dtype) for x in leaves]).max())


def _common_dtype(leaves: Leaves) -> jnp.dtype:
    """Returns the widest type of leaves, of 32 bits at least."""
    return max((wide(jnp.result_type(x)) for x in leaves), key=lambda dtype: dtype.itemsize)


def add(theta: Leaves, eps: Leaves) -> Leaves:
    """Returns `theta + eps`, leaf by leaf."""
    return [w + e for w, e in zip(theta, eps, strict=True)]


class Scope:
    """Splits trees like the parameters into perturbed leaves (theta) and the rest.

    `inside` says for each leaf, in flattening order, whether it is perturbed.
    """

    def __init__(self, params: Any, mask: Mask):
        self.params = params
        self.inside = resolve_mask(params, mask)
        self.theta, self.rest = self.split(params)

    def split(self, tree: Any) -> tuple[Leaves, Leaves]:
        """Returns the leaves of a tree like the parameters: (perturbed, others)."""
        leaves = list(zip(jax.tree.leaves(tree), self.inside, strict=True))
        return [x for x, inside in leaves if inside], [x for x, inside in leaves if not inside]

    def join(self, theta: Leaves, rest: Leaves) -> Any:
        """Undoes `split`."""
        inside, outside = iter(theta), iter(rest)
        leaves = [next(inside) if chosen else next(outside) for chosen in self.inside]
        return jax.tree.unflatten(jax.tree.structure(self.params), leaves)


def resolve_mask(params: Any, mask: Mask) -> list[bool]:
    """Returns, for each leaf of `params` in flattening order, whether the mask selects it.

    Args:
        params: pytree of arrays.
        mask: a pytree prefix of bools, a callable from params to one, or None for all leaves.

    Raises:
        ValueError: the mask is no prefix of `params`, holds something other than bools, or
            selects no leaf.
    """
    try:
        tree = mask(params) if callable(mask) else mask
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(
            f"mask must be a function of the whole params pytree, got one that fails on it: {error}"
        ) from error
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
    for value in chosen:
        if getattr(value, "dtype", type(value)) not in (jnp.bool_, bool):
            raise ValueError(f"mask must hold bools, got {type(value).__name__}")
        if getattr(value, "ndim", 0):
            raise ValueError(f"mask must hold one bool a leaf, got one of shape {value.shape}")
    if not any(chosen):
        raise ValueError("mask must select at least one leaf of params, got False for every leaf")
    return [bool(value) for value in chosen]
