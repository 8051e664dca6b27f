"""Spectral normalization of kernels, as a function of the parameters."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.batch.argument_checks import check_choice
from jaxlt.batch.cosine import unit_norm

_Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SpectralNorm:
    """Divides kernels by their largest singular value (Miyato et al., ICLR 2018).

    Leaves named "kernel" with two or more axes, those under `params["classifier"]` or all, are
    taken as matrices W of shape (prod(shape[:-1]), shape[-1]), a convolution's too, as there.
    sigma = u^T W v, which never exceeds the largest singular value, stands in for it: u is carried
    from step to step by power iteration and v = W^T u / ||W^T u||; to a gradient both are constant.
    The network is a function of the result: `model.apply({"params": norm(params, vectors)}, x)`.
    """

    scope: Literal["all", "classifier"] = "all"
    iterations: int = 1

    def __post_init__(self):
        check_choice("scope", self.scope, ("all", "classifier"))
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")

    def init(self, params: Any) -> dict[str, Any]:
        """Returns a unit vector u for each kernel inside the scope, always the same, as a tree."""
        matrices = sorted(self._matrices(params).items())
        keys = jax.random.split(jax.random.key(0), len(matrices))
        vectors = {
            path: unit_norm(jax.random.normal(key, matrix.shape[:1]), 0)
            for key, (path, matrix) in zip(keys, matrices, strict=True)
        }
        return unflatten_dict(vectors)

    def advance(self, params: Any, vectors: dict[str, Any]) -> dict[str, Any]:
        """Returns the vectors after `iterations` power iterations; constants to a gradient."""
        matrices, units = jax.lax.stop_gradient((self._matrices(params), _leaves(vectors)))
        for _ in range(self.iterations):
            units = {path: _iterated(matrix, units[path]) for path, matrix in matrices.items()}
        return unflatten_dict(units)

    def __call__(self, params: Any, vectors: dict[str, Any]) -> Any:
        """Returns `params` with each kernel W in the scope as W / sigma; zero ones stay zero."""
        flat, units = _leaves(params), _leaves(vectors)
        for path, matrix in self._matrices(params).items():
            v = unit_norm(jnp.matmul(units[path], matrix), 0)
            u, v = jax.lax.stop_gradient((units[path], v))
            sigma = jnp.dot(jnp.matmul(u, matrix), v)
            flat[path] = flat[path] / jnp.where(sigma > 0, sigma, 1)
        return unflatten_dict(flat)

    def _matrices(self, params: Any) -> dict[_Path, jax.Array]:
        return {
            path: leaf.reshape(-1, leaf.shape[-1])
            for path, leaf in _leaves(params).items()
            if path[-1] == "kernel" and leaf.ndim >= 2 and self.scope in ("all", path[0])
        }


def _leaves(tree: Any) -> dict[_Path, Any]:
    return flatten_dict(tree)


def _iterated(matrix: jax.Array, u: jax.Array) -> jax.Array:
    after = unit_norm(jnp.matmul(matrix, unit_norm(jnp.matmul(u, matrix), 0)), 0)
    # A zero vector would stay zero for ever, even where its kernel is zero for one step alone.
    return jnp.where(jnp.any(after != 0), after, u)
