"""A loss of each image, and the moment at which it is taken."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Int, PRNGKeyArray

from jaxlt.batch.class_losses import Features, Labels, Linear, Logits, Losses
from jaxlt.batch.cosine import Cosine


class Moment(NamedTuple):
    """When a loss is taken.

    Attributes:
        step: steps taken before in the stage.
        key: PRNG key of the step, for losses that draw; the same in all passes of a step.
    """

    step: Int[Array, ""]
    key: PRNGKeyArray


PerExampleLoss: TypeAlias = Callable[[Logits, Labels, Moment], Losses]
LossOfFeatures: TypeAlias = Callable[[Features, Linear | Cosine, Labels, Moment], Losses]
