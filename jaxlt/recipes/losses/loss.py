"""What all losses have in common, those without class counts, and class weights."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax

from jaxlt import losses
from jaxlt.recipes.methods import ClassCounts
from jaxlt.recipes.part import BelowOne, Choice, Clock, CountOrZero, NonNegative

if TYPE_CHECKING:
    from jaxlt.training import PerExampleLoss


class Loss(Choice, frozen=True):
    """A loss of each image of a batch; `label` is its name in tables and pictures.

    `of_rows` says whether an image's loss depends on its own logits and label alone: not so where a
    loss draws noise for each image, or has a term of the whole batch.
    """

    label: ClassVar[str] = "?"
    of_rows: ClassVar[bool] = True

    @property
    def logit_scale(self) -> float:
        """The factor that the loss puts on the logits."""
        return 1.0

    def build(self, class_counts: ClassCounts) -> "PerExampleLoss":
        """Builds the loss for training images counted by class."""
        raise NotImplementedError


class CrossEntropy(Loss, frozen=True, tag="cross_entropy"):
    """Cross-entropy."""

    label = "CE"

    def build(self, class_counts):  # noqa: D102 (see Loss, as below)
        return lambda x, y, _: losses.cross_entropy(x, y)


class Focal(Loss, frozen=True, tag="focal"):
    """The focal loss (Lin et al., ICCV 2017)."""

    label = "focal"
    gamma: NonNegative = 2.0
    """Exponent."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.focal(x, y, self.gamma)


class ClassBalanced(Choice, frozen=True, tag="class_balanced"):
    """Class-balanced weights (Cui et al., CVPR 2019) from an epoch on (DRW, Cao et al., 2019)."""

    epoch: CountOrZero = 160
    """First zero-based epoch with the weights, 0 for all."""
    beta: BelowOne = 0.9999
    """Beta of the effective number of images."""
    mean: Literal["batch", "weights"] = "batch"
    """What the losses are divided by: the batch's size, or the sum of its weights."""

    def build(
        self, per_example: "PerExampleLoss", class_counts: ClassCounts, clock: Clock
    ) -> "PerExampleLoss":
        """Puts the weights on a loss.

        Args:
            per_example: the loss.
            class_counts: training images of each class.
            clock: turns epochs into steps.
        """
        start = clock.steps(self.epoch)
        class_weights = losses.deferred_reweighting(class_counts, start, self.beta)

        def weighted(logits: jax.Array, labels: jax.Array, moment: Any) -> jax.Array:
            weights = class_weights(moment.step)[labels]
            if self.mean == "weights":
                weights = weights / weights.mean()
            return per_example(logits, labels, moment) * weights

        return weighted
