"""The losses of a batch as a function of the parameters, for training steps and measurements."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jaxlt.batch.class_losses import ClassLosses, class_losses
from jaxlt.batch.factored_losses import FactoredLosses, Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.step.mixup import MixedBatch, mixed_class_losses
from jaxlt.training.step.network_pass import Moment, NetworkPass, PerExampleLoss, Regime


@dataclasses.dataclass(frozen=True)
class BatchLosses:
    """From parameters to the losses of a batch by class, in the ways that a step needs.

    Attributes:
        model: called as `model(images, train=...)`; an `ImageClassifier` for `FactoredLosses`.
        loss: from logits, labels and `Moment` to losses.
        num_classes: C.
        regime: what the stage does beside.
    """

    model: nn.Module
    loss: PerExampleLoss
    num_classes: int
    regime: Regime

    def __call__(
        self,
        network_pass: NetworkPass,
        params: Any,
        batch: MixedBatch | tuple[jax.Array, jax.Array],
        moment: Moment,
    ) -> tuple[ClassLosses, Any]:
        """Returns the losses and what the pass keeps."""
        images, labels = batch[:2]
        if self.regime.loss_of_features is not None:
            assert isinstance(self.model, ImageClassifier)
            features, kept = network_pass(params, images, "features")
            classifier = self.model.classifier_of(params)
            losses = self.regime.loss_of_features(features, classifier, labels, moment)
            return class_losses(losses, labels, self.num_classes), kept
        logits, kept = network_pass(params, images)
        if isinstance(batch, MixedBatch):
            loss_fn = lambda labels: self.loss(logits, labels, moment)  # noqa: E731
            return mixed_class_losses(loss_fn, batch, self.num_classes), kept
        return class_losses(self.loss(logits, labels, moment), labels, self.num_classes), kept

    def function(
        self,
        network_pass: NetworkPass,
        batch: MixedBatch | tuple[jax.Array, jax.Array],
        moment: Moment,
        passes: Passes | None,
    ) -> Callable[[Any], ClassLosses]:
        """Returns the `class_losses_fn` of the batch, factored where that is possible."""
        model = self.model
        if not (
            self.regime.factored
            and isinstance(model, ImageClassifier)
            and model.has_factored_classifier
        ):
            return lambda params: self(network_pass, params, batch, moment)[0]
        images, labels = batch[:2]
        return FactoredLosses(
            features_fn=lambda params, images: network_pass(params, images, "features")[0],
            classifier_fn=model.classifier_of,
            loss_fn=lambda logits, labels: self.loss(logits, labels, moment),
            images=images,
            labels=labels,
            num_classes=self.num_classes,
            independent=self.regime.separates_images(model),
            passes=passes,
        )
