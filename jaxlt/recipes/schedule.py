"""Learning rates by epoch: what all have in common, the constant one, and CC-SAM's."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlt.recipes.part import Choice

EpochFn: TypeAlias = Callable[[jax.Array], jax.Array]


class Schedule(Choice, frozen=True):
    """From the zero-based epoch to the learning rate, in the long-tailed literature's ways."""

    def build(self, peak: float, epochs: int) -> EpochFn:
        """Builds the function from the zero-based epoch, a float, to the learning rate.

        Args:
            peak: the highest learning rate.
            epochs: of the stage.
        """
        raise NotImplementedError


class Constant(Schedule, frozen=True, tag="constant"):
    """The peak in all epochs."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102 (see Schedule)
        return lambda epoch: jnp.full_like(epoch, peak)


class CCSAMMultiStep(Schedule, frozen=True, tag="cc_sam_multistep"):
    """Released CC-SAM's: warm-up from a third of the peak, a tenth each after 80% and 90%.

    It is stepped before each epoch: with t counted from one, `peak * ((1 - t / 5) / 3 + t / 5)`
    for t below 5, and a factor 0.1 from 80% and from 90% of the epochs on.
    """

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        def rate(epoch: jax.Array) -> jax.Array:
            t = epoch + 1
            warm = jnp.minimum(t / 5, 1)
            rate = peak * ((1 - warm) / 3 + warm)
            for boundary in (epochs * 0.8, epochs * 0.9):
                rate = rate * jnp.where(t >= boundary, 0.1, 1)
            return rate

        return rate
