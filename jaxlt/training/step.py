"""One training step, to be compiled by a `Program`, and the inference function."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxlt.class_losses import ClassLosses, class_losses
from jaxlt.factored_losses import Blocks, Capacity, FactoredLosses, Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.mixup import MixedBatch, mixed_class_losses, mixup
from jaxlt.training.network_pass import Moment, NetworkPass, PerExampleLoss, Regime
from jaxlt.training.spectral_norm import SpectralNorm
from jaxlt.training.state import TrainState
from jaxlt.transformation import SharpnessState

TrainStep: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]

# What a step draws, beside dropout, which has the step's key itself.
_MIXUP, _LOSS = 1, 2


def make_train_step(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    per_example_loss: PerExampleLoss,
    num_classes: int,
    *,
    capacity: int | None = None,
    regime: Regime | None = None,
) -> TrainStep:
    """Builds the step `(state, images, labels) -> (state, batch-mean loss)`, a pure function.

    All passes see the same images and draw the same random numbers; running statistics of batch
    norm are those of the clean pass. Where images do not depend on each other, passes that concern
    some classes alone take those classes' images alone.

    Args:
        model: called as `model(images, train=...)`; an `ImageClassifier` for the savings of
            `FactoredLosses`.
        transformation: any optax transformation; it is handed `class_losses_fn`.
        per_example_loss: from logits, labels and `Moment` to losses.
        num_classes: C.
        capacity: for networks that do not suit loops, how many images of the batch the group of a
            method with one group has at most (see `jaxlt.Capacity`); None if unknown.
        regime: what the stage does beside; None for nothing.
    """
    regime = regime or Regime()
    transformation = optax.with_extra_args_support(transformation)
    losses_of = _LossesOfBatch(model, per_example_loss, num_classes, regime)

    def train_step(state: TrainState, images: jax.Array, labels: jax.Array):
        if regime.spectral_norm is not None:
            vectors = regime.spectral_norm.advance(state.params, state.singular_vectors)
            state = dataclasses.replace(state, singular_vectors=vectors)
        key = jax.random.fold_in(state.key, state.step)
        moment = Moment(state.step - regime.first_step, jax.random.fold_in(key, _LOSS))
        batch = (images, labels)
        if regime.mixup:
            batch = mixup(jax.random.fold_in(key, _MIXUP), images, labels, regime.mixup)
        held = ("held_statistics",) if regime.hold_statistics else ()
        clean_pass = NetworkPass(model, state, regime, keep=("batch_stats", *held))

        def mean_loss(params):
            losses, statistics = losses_of(clean_pass, params, batch, moment)
            return losses.mean(), statistics

        (loss, statistics), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        further_pass = NetworkPass(model, state, regime, held=statistics.get("held_statistics"))
        updates, opt_state = transformation.update(
            gradient,
            state.opt_state,
            state.params,
            class_losses_fn=losses_of.function(further_pass, batch, moment, capacity),
            key=key,
        )
        loss = _loss_of_method(opt_state, default=loss)
        after = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=statistics.get("batch_stats", {}),
            opt_state=opt_state,
            loss_sum=state.loss_sum + loss,
        )
        return after, loss

    return train_step


@dataclasses.dataclass(frozen=True)
class _LossesOfBatch:
    """From parameters to the losses of a batch by class, in the ways that a step needs."""

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
        capacity: int | None,
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
            passes=_passes(model, capacity),
        )


def _passes(model: ImageClassifier, capacity: int | None) -> Passes | None:
    if model.suits_loops:
        return Blocks()
    return None if capacity is None else Capacity(capacity)


def _loss_of_method(opt_state: optax.OptState, default: jax.Array) -> jax.Array:
    """Returns the loss that a method has measured: a second pass for it would not be for free."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, SharpnessState))
    return next((node.loss for node in states if isinstance(node, SharpnessState)), default)


def make_logits_fn(
    model: nn.Module, spectral_norm: SpectralNorm | None = None
) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Builds the jitted inference `(state, images) -> logits`, on running statistics."""

    @jax.jit
    def logits(state: TrainState, images: jax.Array) -> jax.Array:
        params = state.params
        if spectral_norm is not None:
            params = spectral_norm(params, state.singular_vectors)
        return jnp.asarray(model.apply(state.variables(params), images, train=False))

    return logits
