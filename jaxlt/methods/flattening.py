"""Ways to flat minima that know no classes, of CC-SAM's figure 2; its adversarial one is `sam`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, Int

from jaxlt.batch.argument_checks import (
    ScalarOrSchedule,
    at_step,
    check_not_negative,
    check_positive,
)
from jaxlt.batch.precision import at_least_32_bits
from jaxlt.methods.sam import ALL_CLASSES, sam
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.perturbation import Mask
from jaxlt.sharpness.state import SharpnessState


def gradient_norm_penalty(
    penalty: ScalarOrSchedule, rho: ScalarOrSchedule, *, mask: Mask = None, adaptive: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Descends on `L + penalty * ||grad L||` (Zhao et al., ICML 2022, algorithm 1).

    A difference over the distance rho replaces the Hessian. With `a = penalty / rho` it returns
    `(1 - a) * grad L(w) + a * grad L(w + rho * grad L / ||grad L||)`. A step costs two forward and
    two backward passes. With `penalty = rho` it is SAM. It reads the incoming gradient.

    Args:
        penalty: weight of the gradient's norm, at least 0, or a schedule of it.
        rho: distance of the difference, positive, or a schedule of it that is always positive.
        mask: the leaves in the norm: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether the distance is relative to each weight's magnitude (ASAM).

    Raises:
        ValueError: the penalty is negative or rho is not positive; at `init` or `update`, the mask
            does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.gradient_norm_penalty(penalty=0.1, rho=0.5)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.53 2.04]
    """
    check_not_negative(penalty=penalty)
    check_positive(rho=rho)
    perturbed = sam(rho, mask=mask, adaptive=adaptive)

    def update_fn(
        updates: optax.Updates,
        state: SharpnessState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        moved, after = perturbed.update(updates, state, params, **extra_args)
        share = at_step(penalty, state.count) / at_step(rho, state.count)

        def between(at_w, moved):
            if not jnp.issubdtype(at_w.dtype, jnp.inexact):  # of a parameter without derivative
                return at_w
            near, far = at_least_32_bits(at_w), at_least_32_bits(moved)
            part = share.astype(near.dtype)
            return ((1 - part) * near + part * far).astype(at_w.dtype)

        return jax.tree.map(between, updates, moved), after

    return optax.GradientTransformationExtraArgs(perturbed.init, update_fn)  # pyright: ignore[reportArgumentType]


def random_perturbation(
    rho: ScalarOrSchedule, seed: Int[ArrayLike, ""], *, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """SAM in a random direction: the gradient of L at `w + rho * xi / ||xi||`, xi standard normal.

    The seed and the step count decide xi, which differs from step to step and is the same on every
    device. It does not read the incoming gradient. A step costs one forward and one backward pass
    where nothing else uses that gradient.

    Args:
        rho: radius, at least 0, or a schedule of it.
        seed: seed of the directions. To let your run decide too, give `update` a `key=` of it.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.

    Raises:
        ValueError: the radius is negative; at `init` or `update`, the mask does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.random_perturbation(rho=0.5, seed=0)
        >>> _, state = tx.update(w, tx.init(w), w, class_losses_fn=losses_fn)
        >>> print(state.perturbation_norm)
        [0.5]
    """
    check_not_negative(rho=rho)
    return sharpness_aware(ALL_CLASSES, rho, seed=seed, mask=mask)
