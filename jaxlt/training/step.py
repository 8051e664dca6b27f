"""One training step, to be compiled by a `Program`, and the inference function."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxlt.class_losses import ClassLosses, class_losses
from jaxlt.factored_losses import Blocks, Capacity, FactoredLosses, Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.state import TrainState
from jaxlt.transformation import SharpnessState

# (logits (B, C), labels (B,), step ()) -> losses (B,)
PerExampleLoss: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]


def make_train_step(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    per_example_loss: PerExampleLoss,
    num_classes: int,
    *,
    capacity: int | None = None,
    hold_statistics: bool = False,
) -> TrainStep:
    """Builds the step `(state, images, labels) -> (state, batch-mean loss)`, a pure function.

    All passes see the same images and draw the same random numbers, in training mode; running
    statistics of batch norm are those of the clean pass. Where images do not depend on each
    other, passes that concern some classes alone take those classes' images alone.

    Args:
        model: called as `model(images, train=True)`; an `ImageClassifier` for the savings of
            `FactoredLosses`.
        transformation: any optax transformation; it is handed `class_losses_fn`.
        per_example_loss: from logits, labels and step to losses.
        num_classes: C.
        capacity: for networks that do not suit loops, how many images of the batch the group of a
            method with one group has at most (see `jaxlt.Capacity`); None if unknown.
        hold_statistics: normalise in all passes by the clean pass's batch statistics as constants:
            no gradient flows through them. The images of a batch then do not depend on each other.
    """
    transformation = optax.with_extra_args_support(transformation)
    independent = isinstance(model, ImageClassifier) and (
        hold_statistics or not model.couples_examples
    )

    def train_step(state: TrainState, images: jax.Array, labels: jax.Array):
        keep = ("batch_stats", "held_statistics") if hold_statistics else ("batch_stats",)
        clean_pass = _Pass(model, state, keep=keep)

        def loss_fn(logits: jax.Array, labels: jax.Array) -> jax.Array:
            return per_example_loss(logits, labels, state.step)

        def mean_loss(params):
            logits, statistics = clean_pass(params, images)
            losses = class_losses(loss_fn(logits, labels), labels, num_classes)
            return losses.mean(), statistics

        (loss, statistics), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        further_pass = _Pass(model, state, held=statistics.get("held_statistics"))

        def class_losses_of_network(params) -> ClassLosses:
            logits, _ = further_pass(params, images)
            return class_losses(loss_fn(logits, labels), labels, num_classes)

        losses = class_losses_of_network
        if isinstance(model, ImageClassifier):
            losses = FactoredLosses(
                features_fn=lambda params, images: further_pass(params, images, "features")[0],
                classifier_fn=model.classifier_of,
                loss_fn=loss_fn,
                images=images,
                labels=labels,
                num_classes=num_classes,
                independent=independent,
                passes=_passes(model, capacity),
            )
        updates, opt_state = transformation.update(
            gradient, state.opt_state, state.params, class_losses_fn=losses
        )
        loss = _loss_of_method(opt_state, default=loss)
        after = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=statistics.get("batch_stats", {}),
            opt_state=opt_state,
            key=state.key,
            loss_sum=state.loss_sum + loss,
        )
        return after, loss

    return train_step


class _Pass:
    """A pass through the network in training mode.

    Args:
        model: the network.
        state: what the pass takes beside parameters.
        keep: collections of variables to return.
        held: statistics for batch norm to normalise by, None for each batch's own.
    """

    def __init__(
        self, model: nn.Module, state: TrainState, *, keep: tuple[str, ...] = (), held: Any = None
    ):
        self._model, self._keep = model, keep
        self._variables = {"batch_stats": state.batch_stats}
        if held is not None:
            self._variables["held_statistics"] = jax.lax.stop_gradient(held)
        self._key = jax.random.fold_in(state.key, state.step)

    def __call__(
        self, params: Any, images: jax.Array, method: str | None = None
    ) -> tuple[jax.Array, Any]:
        output, variables = self._model.apply(
            {"params": params, **self._variables},
            images,
            train=True,
            method=method,
            mutable=["batch_stats", *self._keep],
            rngs={"dropout": self._key},
        )
        return output, {name: variables[name] for name in self._keep if name in variables}


def _passes(model: ImageClassifier, capacity: int | None) -> Passes | None:
    if model.suits_loops:
        return Blocks()
    return None if capacity is None else Capacity(capacity)


def _loss_of_method(opt_state: optax.OptState, default: jax.Array) -> jax.Array:
    """Returns the loss that a method has measured: a second pass for it would not be for free."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, SharpnessState))
    return next((node.loss for node in states if isinstance(node, SharpnessState)), default)


def make_logits_fn(model: nn.Module) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Builds the jitted inference `(state, images) -> logits`, on running statistics."""

    @jax.jit
    def logits(state: TrainState, images: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return jnp.asarray(model.apply(variables, images, train=False))

    return logits
