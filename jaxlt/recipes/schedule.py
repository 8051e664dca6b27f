"""What all learning rates by epoch have in common, and the constant one."""

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
