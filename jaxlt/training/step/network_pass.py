"""A pass of a batch through a network in training, and how a stage wants it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.batch.classifiers import Cosine, Linear
from jaxlt.models import ImageClassifier
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.state import TrainState

# What the loss draws from the step's key.
_LOSS = 2


class Moment(NamedTuple):
    """When a loss is taken.

    Attributes:
        step: () steps taken before in the stage.
        key: PRNG key of the step, for losses that draw; the same in all passes of a step.
    """

    step: jax.Array
    key: jax.Array


# (logits (B, C), labels (B,), moment) -> losses (B,)
PerExampleLoss: TypeAlias = Callable[[jax.Array, jax.Array, Moment], jax.Array]
# (features (B, D), classifier, labels (B,), moment) -> losses (B,)
LossOfFeatures: TypeAlias = Callable[[jax.Array, Linear | Cosine, jax.Array, Moment], jax.Array]


@dataclasses.dataclass(frozen=True)
class Regime:
    """What a stage of training does to images, parameters and statistics.

    Attributes:
        first_step: step of the run at which the stage begins.
        mixup: alpha of `jaxlt.training.step.mixup`; 0 for none.
        row_losses: whether each row's loss depends on that row alone: not so where a loss draws
            noise for each row of the batch, or has a term of the whole batch.
        loss_of_features: takes the place of classifier and loss where a stage changes the features
            in between; None for none.
        running_statistics: batch norm normalises by its running statistics, which then stay.
        hold_statistics: batch norm normalises in all passes by the clean pass's batch statistics as
            constants: no gradient flows through them, and images do not depend on each other.
        spectral_norm: of kernels; None for none.
        micro_batch: images that pass through the network together, the batch being taken in turns:
            gradients are accumulated and a pass is computed again in its backward pass, so that a
            step needs memory for so many images alone and gives the same numbers but for rounding.
            None for the whole batch. Only where images do not depend on each other.
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
        return (
            self.row_losses
            and not self.mixup
            and self.loss_of_features is None
            and self.spectral_norm is None
        )

    def separates_images(self, model: ImageClassifier) -> bool:
        """Whether an image's features depend on that image alone."""
        return self.hold_statistics or self.running_statistics or not model.couples_examples


def moment_of(state: TrainState, regime: Regime) -> Moment:
    """Returns when the step that a state is about to take has its losses."""
    key = jax.random.fold_in(state.key, state.step)
    return Moment(state.step - regime.first_step, jax.random.fold_in(key, _LOSS))


def with_vectors_of_step(state: TrainState, regime: Regime) -> TrainState:
    """Returns a state with the singular vectors of the step that it is about to take."""
    if regime.spectral_norm is None:
        return state
    vectors = regime.spectral_norm.advance(state.params, state.singular_vectors)
    return dataclasses.replace(state, singular_vectors=vectors)


class NetworkPass:
    """A pass through the network.

    All passes of a step draw the same random numbers.

    Args:
        model: called as `model(images, train=...)`.
        state: what the pass takes beside parameters; its singular vectors are those of this step.
        regime: of the stage.
        keep: collections of variables to return.
        held: statistics for batch norm to normalise by, None for each batch's own.
    """

    def __init__(
        self,
        model: nn.Module,
        state: TrainState,
        regime: Regime,
        *,
        keep: tuple[str, ...] = (),
        held: Any = None,
    ):
        self._model, self._state, self._regime, self._keep = model, state, regime, keep
        self._held = {} if held is None else {"held_statistics": jax.lax.stop_gradient(held)}
        self._key = jax.random.fold_in(state.key, state.step)

    def __call__(
        self, params: Any, images: jax.Array, method: str | None = None
    ) -> tuple[jax.Array, Any]:
        """Returns the network's output, or that of one of its methods, and what is kept."""
        norm = self._regime.spectral_norm
        if norm is not None:
            params = norm(params, self._state.singular_vectors)
        variables = {**self._state.variables(params), **self._held}
        size = self._regime.micro_batch
        if size is None or len(images) <= size:
            return self._apply(variables, images, method)
        return _in_turns(lambda some: self._apply(variables, some, method)[0], images, size), {}

    def _apply(
        self, variables: Any, images: jax.Array, method: str | None
    ) -> tuple[jax.Array, Any]:
        output, kept = self._model.apply(
            variables,
            images,
            train=not self._regime.running_statistics,
            method=method,
            mutable=["batch_stats", *self._keep],
            rngs={"dropout": self._key},
        )
        return output, {name: kept[name] for name in self._keep if name in kept}


def _in_turns(
    function: Callable[[jax.Array], jax.Array], images: jax.Array, size: int
) -> jax.Array:
    """Applies a function of images, `size` at a time, keeping nothing for the backward pass."""
    function = jax.checkpoint(function)
    turns = len(images) // size
    whole, rest = images[: turns * size], images[turns * size :]
    # Every so many-th image, so that each device has its part of every turn.
    parts = whole.reshape(size, turns, *images.shape[1:]).swapaxes(0, 1)
    outputs = jax.lax.map(function, parts).swapaxes(0, 1)
    outputs = outputs.reshape(turns * size, *outputs.shape[2:])
    return jnp.concatenate([outputs, function(rest)]) if len(rest) else outputs
