"""CC-SAM's feature adversary, around any loss."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from jaxlt.losses.feature_adversary import adversarial_losses, released_class_weights
from jaxlt.recipes.methods import ClassCounts
from jaxlt.recipes.part import Choice, Clock, NonNegative, Positive, Share

if TYPE_CHECKING:
    from jaxlt.training import PerExampleLoss


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

    def build(self, per_example: "PerExampleLoss", class_counts: ClassCounts, clock: Clock) -> Any:
        """Builds the loss of features, see `jaxlt.training.step.network_pass.Regime`.

        Args:
            per_example: the loss of the features as they are.
            class_counts: training images of each class.
            clock: turns epochs into steps.
        """
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

    def weights(self, class_counts):  # noqa: D102 (see Adversary)
        return released_class_weights(class_counts, self.divisor)
