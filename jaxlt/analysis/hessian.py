"""Eigenvalues, trace and spectral density of Hessians, from Hessian-vector products alone.

The class-wise analysis is that of Rangwani et al. ("Escaping saddle points for effective
generalization on class-imbalanced data", NeurIPS 2022). The density is that of Ghorbani et al. ("An
investigation into neural net optimization via Hessian eigenvalue density", ICML 2019), algorithm 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from matfree.decomp import hessenberg

from jaxlt.analysis.dataset_losses import DatasetLosses

# The product with a symmetric matrix.
Product: TypeAlias = Callable[[Float[Array, " params"]], Float[Array, " params"]]

# An off-diagonal element so many units of rounding of the largest ones is as good as zero.
_UNITS_OF_ROUNDING = 10
# Of the Gaussians that the density is smoothed by, over the width of the spectrum.
_SMOOTHING_VARIANCE = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """What Lanczos' algorithm finds of the eigenvalues of a symmetric matrix of P by P.

    Attributes:
        ritz_values: of each starting vector, ascending. Where a vector's Krylov space
            has fewer dimensions than steps, the last value is repeated with weight 0.
        weights: squared first components of their vectors, the weights of Gaussian
            quadrature with the spectral density; each row adds up to 1.
        residuals: bounds on the distance of each Ritz value from an eigenvalue, up to the
            rounding of the products.
    """

    ritz_values: Float[np.ndarray, "vectors steps"]
    weights: Float[np.ndarray, "vectors steps"]
    residuals: Float[np.ndarray, "vectors steps"]

    @property
    def largest(self) -> float:
        """Largest Ritz value, a lower bound of the largest eigenvalue."""
        return float(self.ritz_values.max())

    @property
    def smallest(self) -> float:
        """Smallest Ritz value, an upper bound of the smallest eigenvalue."""
        return float(self.ritz_values.min())

    @property
    def saddle_measure(self) -> float:
        """`|lambda_min / lambda_max|`: how large a negative lambda_min is; NaN for a Hessian of 0.

        It is near 0 at a minimum of many more parameters than images, whose Hessian is singular.
        """
        return abs(self.smallest / self.largest) if self.largest else float("nan")

    @property
    def residual(self) -> float:
        """The larger of the bounds on the error of `smallest` and `largest`."""
        flat = self.ritz_values.ravel()
        return float(self.residuals.ravel()[[flat.argmin(), flat.argmax()]].max())

    def density(self, grid: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Returns the density of eigenvalues at the points of a grid, with area 1.

        Each Ritz value is a Gaussian of variance 1e-5 times the width of the spectrum, or 1e-5
        where that is less than 1.
        """
        variance = _SMOOTHING_VARIANCE * max(1.0, self.largest - self.smallest)
        distances = grid[:, np.newaxis, np.newaxis] - self.ritz_values
        gaussians = np.exp(-(distances**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        return (self.weights * gaussians).sum(axis=2).mean(axis=1)


class Trace(NamedTuple):
    """An estimate of a trace: the mean over samples and its standard error, NaN for one sample."""

    mean: float
    standard_error: float


def hessian_product(losses: DatasetLosses, theta: Any) -> tuple[Product, int]:
    """Returns the product with the Hessian of the mean loss as a function of vectors, and P.

    Args:
        losses: of the data set.
        theta: parameters; vectors have their components in the order of `ravel_pytree(theta)`.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxlt.analysis as analysis
        >>> losses_fn = lambda w, rest, inputs, labels: (inputs @ w) ** 2 / 2
        >>> losses = analysis.DatasetLosses.of(losses_fn, np.diag([2.0, 1.0]), np.array([0, 1]), 2)
        >>> product, dimension = analysis.hessian_product(losses, jnp.zeros(2))
        >>> print(product(jnp.ones(2)), dimension)
        [2.  0.5] 2
    """
    flat, unravel = ravel_pytree(theta)

    def product(vector: Float[Array, " params"]) -> Float[Array, " params"]:
        return ravel_pytree(losses.hessian_vector_product(theta, unravel(vector)))[0]

    return product, flat.size


def spectrum(
    product: Product,
    dimension: int,
    key: PRNGKeyArray,
    *,
    num_steps: int = 100,
    num_vectors: int = 1,
    dtype: Any = jnp.float32,
) -> Spectrum:
    """Runs Lanczos' algorithm with full re-orthogonalization from random signs.

    It holds `num_steps` vectors of the dimension, and a copy.

    Args:
        product: with the matrix; may be traced, and what of it is jitted stays a program.
        dimension: P.
        key: of the starting vectors.
        num_steps: M, products for each of them; P where that is less.
        num_vectors: S.
        dtype: of the vectors.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt.analysis as analysis
        >>> found = analysis.spectrum(lambda v: jnp.array([4.0, -1.0]) * v, 2, jax.random.key(0))
        >>> round(found.largest, 3), round(found.smallest, 3)
        (4.0, -1.0)
    """
    num_steps = min(num_steps, dimension)
    found = [
        _lanczos(product, jax.random.rademacher(one, (dimension,), dtype), num_steps)
        for one in jax.random.split(key, num_vectors)
    ]
    return Spectrum(*(np.stack(arrays) for arrays in zip(*found, strict=True)))


def _lanczos(product: Product, start: Array, num_steps: int) -> tuple[np.ndarray, ...]:
    def compiled_product(vector: Array) -> Array:
        with jax.disable_jit(False):
            return product(vector)

    decompose = hessenberg(num_steps, reortho="full", custom_vjp=False)
    # Python runs the library's loop and calls what is jitted in the product, which the library
    # traces: within a loop of XLA's a product may be ten times slower on CPU.
    with jax.disable_jit():
        decomposition = decompose(compiled_product, start)
    small = np.asarray(decomposition.J_small, np.float64)
    # Below the diagonal are the lengths that the basis was divided by. Above it, where a symmetric
    # matrix has the same, is rounding once they vanish.
    diagonal, beside = np.diagonal(small), np.diagonal(small, -1)
    beside = np.append(beside, float(jnp.linalg.norm(decomposition.residual)))
    used = _steps_until_exhausted(diagonal, beside, float(jnp.finfo(start.dtype).eps))
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal[:used], beside[: used - 1])
    residuals = np.abs(beside[used - 1] * vectors[-1])
    missing = (0, num_steps - used)
    return (
        np.pad(values, missing, mode="edge"),
        np.pad(vectors[0] ** 2, missing),
        np.pad(residuals, missing, mode="edge"),
    )


def _steps_until_exhausted(diagonal: np.ndarray, beside: np.ndarray, eps: float) -> int:
    """Returns after how many steps nothing but rounding is left of a Krylov space.

    What follows says nothing of the matrix: the library divides by lengths that are nearly zero,
    and its basis is no longer orthogonal.
    """
    scale = np.maximum.accumulate(np.maximum(np.abs(diagonal), np.append(0, beside[:-1])))
    exhausted = np.flatnonzero(~(beside > _UNITS_OF_ROUNDING * eps * scale))
    return int(exhausted[0]) + 1 if len(exhausted) else len(diagonal)


def trace(
    product: Product,
    dimension: int,
    key: PRNGKeyArray,
    *,
    num_samples: int,
    dtype: Any = jnp.float32,
) -> Trace:
    """Estimates the trace of a symmetric matrix by Hutchinson's method with random signs.

    Each of `num_samples` samples takes one product with the matrix; for the rest see `spectrum`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt.analysis as analysis
        >>> analysis.trace(lambda v: v * jnp.arange(3), 3, jax.random.key(0), num_samples=2).mean
        3.0
    """
    samples = []
    for one in jax.random.split(key, num_samples):
        vector = jax.random.rademacher(one, (dimension,), dtype)
        samples.append(float(jnp.vdot(vector, product(vector))))
    deviation = np.std(samples, ddof=1) if num_samples > 1 else np.nan
    return Trace(float(np.mean(samples)), float(deviation / np.sqrt(num_samples)))
