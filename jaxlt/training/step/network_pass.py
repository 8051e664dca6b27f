"""Training passes of a batch through a network to its losses, and how a stage wants them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array

from jaxlt.batch.class_losses import ClassLosses, FactoredLosses, Labels, class_losses
from jaxlt.batch.passes import Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.step.micro_batches import in_turns
from jaxlt.training.step.mixup import MixedBatch, mixed_class_losses
from jaxlt.training.step.per_example_loss import LossOfFeatures, Moment, PerExampleLoss
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.state import TrainState

# What the loss draws from the step's key.
_LOSS = 2


@dataclasses.dataclass(frozen=True)
class Regime:
    """What a stage of training does to images, parameters and statistics.

    Attributes:
        first_step: step of the run at which the stage begins.
        mixup: alpha of `jaxlt.training.step.mixup`; 0 for none.
        row_losses: whether each row's loss depends on that row alone: it draws no noise for each
            row of the batch, and has no term of the whole batch.
        loss_of_features: in place of classifier and loss, where a stage changes features between.
        running_statistics: batch norm normalizes by its running statistics, which then stay.
        hold_statistics: batch norm normalizes in all passes by the clean pass's batch statistics as
            constants: no gradient flows through them, and images do not depend on each other.
        spectral_norm: of kernels.
        micro_batch: images that pass through the network together, the batch being taken in turns:
            gradients are accumulated and a pass is computed again in its backward pass, so that a
            step needs memory for so many images alone. Only where images do not depend on each
            other; numbers change by rounding.
    """

    first_step: int = 0
    mixup: float = 0.0
    row_losses: bool = True
    loss_of_features: LossOfFeatures | None = None
    running_statistics: bool = False
    hold_statistics: bool = False
    spectral_norm: SpectralNorm | None = None
    micro_batch: int | None = None

    @property
    def factored(self) -> bool:
        """Whether the losses of a batch factor into features, classifier and losses of rows."""
        return self.row_losses and not (self.mixup or self.loss_of_features or self.spectral_norm)

    def separates_images(self, model: ImageClassifier) -> bool:
        """Whether an image's features depend on that image alone."""
        return self.hold_statistics or self.running_statistics or not model.couples_examples

    def before_step(self, state: TrainState) -> TrainState:
        """Returns a state with the singular vectors of the step that it is about to take."""
        if self.spectral_norm is None:
            return state
        vectors = self.spectral_norm.advance(state.params, state.singular_vectors)
        return dataclasses.replace(state, singular_vectors=vectors)


@dataclasses.dataclass(eq=False)
class BatchLosses:
    """The losses of a batch by class in training, as a function of the parameters.

    All passes of a step draw the same random numbers. A pass returns the collections `keep` of
    variables too. Batch norm normalizes by `held`, or else by each batch's own statistics.
    """

    model: nn.Module
    per_example_loss: PerExampleLoss
    num_classes: int
    regime: Regime
    state: TrainState
    batch: MixedBatch | tuple[Array, Labels]
    keep: tuple[str, ...] = ()
    held: Any = None

    def __post_init__(self):
        # Here and not in a pass, which may be within a loop of the device.
        self.key = jax.random.fold_in(self.state.key, self.state.step)
        key = jax.random.fold_in(self.key, _LOSS)
        self.moment = Moment(self.state.step - self.regime.first_step, key)

    def __call__(self, params: Any) -> tuple[ClassLosses, Any]:
        """Returns the losses and what the pass keeps."""
        images, labels = self.batch[:2]
        if self.regime.loss_of_features is not None:
            assert isinstance(self.model, ImageClassifier)
            features, kept = self._outputs(params, images, "features")
            classifier = self.model.classifier_of(params)
            losses = self.regime.loss_of_features(features, classifier, labels, self.moment)
            return class_losses(losses, labels, self.num_classes), kept
        logits, kept = self._outputs(params, images)
        loss_fn = lambda labels: self.per_example_loss(logits, labels, self.moment)  # noqa: E731
        if isinstance(self.batch, MixedBatch):
            return mixed_class_losses(loss_fn, self.batch, self.num_classes), kept
        return class_losses(loss_fn(labels), labels, self.num_classes), kept

    def function(self, passes: Passes | None) -> Callable[[Any], ClassLosses]:
        """Returns the `class_losses_fn` of the batch, factored where that is possible."""
        model = self.model
        if not (
            self.regime.factored
            and isinstance(model, ImageClassifier)
            and model.has_factored_classifier
        ):
            return lambda params: self(params)[0]
        images, labels = self.batch[:2]
        return FactoredLosses(
            features_fn=lambda params, images: self._outputs(params, images, "features")[0],
            classifier_fn=model.classifier_of,
            loss_fn=lambda logits, labels: self.per_example_loss(logits, labels, self.moment),
            images=images,
            labels=labels,
            num_classes=self.num_classes,
            independent=self.regime.separates_images(model),
            passes=passes,
        )

    def _outputs(self, params: Any, images: Array, method: str | None = None) -> tuple[Array, Any]:
        """Returns the network's output, or that of one of its methods, and what is kept."""
        norm, size = self.regime.spectral_norm, self.regime.micro_batch
        if norm is not None:
            params = norm(params, self.state.singular_vectors)
        variables = self.state.variables(params)
        if self.held is not None:
            variables["held_statistics"] = jax.lax.stop_gradient(self.held)
        apply: Any = functools.partial(
            self.model.apply,
            variables,
            train=not self.regime.running_statistics,
            method=method,
            mutable=["batch_stats", *self.keep],
            rngs={"dropout": self.key},
        )
        if size is not None and len(images) > size:
            return in_turns(lambda some: apply(some)[0], images, size), {}
        output, kept = apply(images)
        return output, {name: kept[name] for name in self.keep if name in kept}
