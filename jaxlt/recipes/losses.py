"""Per-example losses, their class weights and CC-SAM's feature adversary, as parts of a recipe.

To add a loss, write a subclass of `Loss` here, or in a file of its own, and name it in the union.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxlt import losses
from jaxlt.losses.feature_adversary import adversarial_losses, released_class_weights
from jaxlt.recipes.methods import ClassCounts
from jaxlt.recipes.part import BelowOne, Choice, Clock, CountOrZero, NonNegative, Positive, Share

# (logits (B, C), labels (B,), moment) -> losses (B,); see jaxlt.training.step.network_pass
PerExampleLoss: TypeAlias = Callable[[jax.Array, jax.Array, Any], jax.Array]


class Loss(Choice, frozen=True):
    """A loss of each image of a batch.

    Attributes:
        label: the loss's name in tables and pictures.
        of_rows: whether an image's loss depends on its own logits and label alone: not so where a
            loss draws noise for each image, or has a term of the whole batch.
    """

    label: ClassVar[str] = "?"
    of_rows: ClassVar[bool] = True

    @property
    def logit_scale(self) -> float:
        """The factor that the loss puts on the logits."""
        return 1.0

    def build(self, class_counts: ClassCounts) -> PerExampleLoss:
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


class LDAM(Loss, frozen=True, tag="ldam"):
    """Label-distribution-aware margins (Cao et al., NeurIPS 2019)."""

    label = "LDAM"
    max_margin: NonNegative = 0.5
    """Margin of the rarest class."""
    scale: Positive = 30.0
    """Factor on the cosines."""

    @property
    def logit_scale(self):  # noqa: D102
        return self.scale

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.ldam(x, y, class_counts, self.max_margin, self.scale)


class LogitAdjusted(Loss, frozen=True, tag="logit_adjusted"):
    """Logit adjustment (Menon et al., ICLR 2021)."""

    label = "LA"
    tau: NonNegative = 1.0
    """Strength of the adjustment."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.logit_adjusted(x, y, class_counts, self.tau)


class BalancedSoftmax(Loss, frozen=True, tag="balanced_softmax"):
    """Balanced softmax (Ren et al., NeurIPS 2020)."""

    label = "balanced softmax"

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.balanced_softmax(x, y, class_counts)


class VectorScaling(Loss, frozen=True, tag="vector_scaling"):
    """The vector-scaling loss (Kini et al., NeurIPS 2021)."""

    label = "VS"
    gamma: NonNegative = 0.3
    """Exponent of the multiplicative adjustment."""
    tau: NonNegative = 1.0
    """Strength of the additive adjustment."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.vector_scaling(x, y, class_counts, self.gamma, self.tau)


class GCL(Loss, frozen=True, tag="gcl"):
    """Gaussian clouded logits (Li et al., CVPR 2022)."""

    label = "GCL"
    of_rows = False
    noise_scale: NonNegative = 0.5
    """Amplitude of the noise on the rarest class's cosine."""
    margin: NonNegative = 0.0
    """Margin on the cosine of the label."""
    scale: Positive = 30.0
    """Factor on the cosines."""
    focusing: NonNegative = 0.0
    """Focal exponent, 1 in its second stage."""

    @property
    def logit_scale(self):  # noqa: D102
        return self.scale

    def build(self, class_counts):  # noqa: D102
        def gcl(logits: jax.Array, labels: jax.Array, moment: Any) -> jax.Array:
            return losses.gcl(
                logits,
                labels,
                class_counts,
                losses.gcl_noise(moment.key, logits.shape),
                noise_scale=self.noise_scale,
                margin=self.margin,
                scale=self.scale,
                focusing=self.focusing,
            )

        return gcl


class LabelAwareSmoothing(Loss, frozen=True, tag="label_aware_smoothing"):
    """Label-aware smoothing (Zhong et al., CVPR 2021)."""

    label = "label-aware smoothing"
    head: Share = 0.3
    """Smoothing of the largest class."""
    tail: Share = 0.0
    """Smoothing of the smallest."""
    shape: Literal["concave", "linear", "convex"] = "concave"
    """How it grows with the number of images."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.label_aware_smoothing(
            x, y, class_counts, self.head, self.tail, self.shape
        )


class LADE(Loss, frozen=True, tag="lade"):
    """LADE (Hong et al., CVPR 2021): balanced softmax with a regulariser of the batch."""

    label = "LADE"
    of_rows = False
    weight: NonNegative = 0.1
    """Weight of the regulariser."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.lade(x, y, class_counts, weight=self.weight)


class ClassBalanced(Choice, frozen=True, tag="class_balanced"):
    """Class-balanced weights (Cui et al., CVPR 2019) from an epoch on (DRW, Cao et al., 2019)."""

    epoch: CountOrZero = 160
    """First zero-based epoch with the weights, 0 for all."""
    beta: BelowOne = 0.9999
    """Beta of the effective number of images."""
    mean: Literal["batch", "weights"] = "batch"
    """What the losses are divided by: the batch's size, or the sum of its weights."""

    def build(
        self, per_example: PerExampleLoss, class_counts: ClassCounts, clock: Clock
    ) -> PerExampleLoss:
        """Puts the weights on a loss."""
        start = clock.steps(self.epoch)
        class_weights = losses.deferred_reweighting(class_counts, start, self.beta)

        def weighted(logits: jax.Array, labels: jax.Array, moment: Any) -> jax.Array:
            weights = class_weights(moment.step)[labels]
            if self.mean == "weights":
                weights = weights / weights.mean()
            return per_example(logits, labels, moment) * weights

        return weighted


class Adversary(Choice, frozen=True):
    """CC-SAM's second stage on a frozen network (CVPR 2023): features moved against the classifier.

    The share of their loss grows linearly over the epochs.
    """

    radius: NonNegative = 1.0
    """How far a feature, or all of a class in the batch, is moved."""
    limit: Share = 1.0
    """Largest share of the moved features' loss."""

    def weights(self, class_counts: ClassCounts) -> Any:
        """Returns the classes' weights (C,), None for none."""
        del class_counts

    def build(self, per_example: PerExampleLoss, class_counts: ClassCounts, clock: Clock) -> Any:
        """Builds the loss of features, see `jaxlt.training.step.network_pass.Regime`."""
        weights = self.weights(class_counts)

        def losses_of_features(features: Any, classifier: Any, labels: Any, moment: Any) -> Any:
            epoch = moment.step * clock.batch_size // clock.num_images
            return adversarial_losses(
                features,
                classifier,
                lambda x, y: per_example(x, y, moment),
                labels,
                len(class_counts),
                ratio=jnp.minimum((epoch + 1) / clock.epochs, self.limit),
                radius=self.radius,
                grouping="example" if weights is None else "class",
                class_weights=weights,
            )

        return losses_of_features


class PaperAdversary(Adversary, frozen=True, tag="paper"):
    """One direction an image, as the paper has it."""


class ReleasedAdversary(Adversary, frozen=True, tag="released"):
    """One direction a class, with weights by rarity, as the released code has it."""

    divisor: Positive = 2.0
    """Divisor of the weights log(N_max / N_c + 0.01)."""

    def weights(self, class_counts):  # noqa: D102
        return released_class_weights(class_counts, self.divisor)


if TYPE_CHECKING:
    AnyLoss: TypeAlias = Loss
    AnyAdversary: TypeAlias = Adversary
else:
    AnyLoss = (
        CrossEntropy
        | Focal
        | LDAM
        | LogitAdjusted
        | BalancedSoftmax
        | VectorScaling
        | GCL
        | LabelAwareSmoothing
        | LADE
    )
    AnyAdversary = PaperAdversary | ReleasedAdversary
