"""One training step, to be compiled by a `Program`, and the inference function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Sharding
from jaxtyping import Array, Float, Shaped

from jaxlt.batch.class_losses import Labels
from jaxlt.batch.passes import Blocks, Capacity, Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.step.ascent import first_images
from jaxlt.training.step.finite_steps import unless_finite
from jaxlt.training.step.mixup import mixup
from jaxlt.training.step.network_pass import BatchLosses, PerExampleLoss, Regime
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.state import TrainState, method_state

_Images: TypeAlias = Shaped[Array, "batch ..."]
TrainStep: TypeAlias = Callable[[TrainState, _Images, Labels], tuple[TrainState, Float[Array, ""]]]

# What a step draws, beside dropout, which has the step's key itself, and the loss.
_MIXUP = 1


def make_train_step(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    per_example_loss: PerExampleLoss,
    num_classes: int,
    *,
    capacity: int | None = None,
    passes_by_group: bool = True,
    regime: Regime | None = None,
    skip_nonfinite: bool = False,
    axis_name: str | None = None,
    ascent_share: float = 1.0,
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
        passes_by_group: whether methods with few groups may pass over each group's images alone.
            Not where the batch is spread over devices: all would be brought to each.
        regime: what the stage does beside; None for nothing.
        skip_nonfinite: whether a step that is not finite changes nothing, see `unless_finite`.
        axis_name: mapped axis along which each shard is a batch of its own until its gradient is
            there (see `shards.py`), which the transformation averages, as `jaxlt.per_shard` does.
            None where the step sees the whole batch.
        ascent_share: of the batch, whose first images decide the directions of perturbations.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt, optax
        >>> from jaxlt import models, training
        >>> model = models.create_model("mlp", 2, image_shape=(2, 2, 1))
        >>> tx = optax.chain(jaxlt.sam(0.05), optax.sgd(0.1))
        >>> loss = lambda logits, labels, moment: jaxlt.losses.cross_entropy(logits, labels)
        >>> step = jax.jit(training.make_train_step(model, tx, loss, num_classes=2))
        >>> state = training.make_state_fn(model, tx, image_shape=(2, 2, 1))(0)
        >>> images, labels = jnp.eye(4).reshape(4, 2, 2, 1), jnp.array([0, 1, 0, 1])
        >>> state, mean_loss = step(state, images, labels)
        >>> int(state.step)
        1
    """
    regime = regime or Regime()
    transformation = optax.with_extra_args_support(transformation)
    losses_of = functools.partial(BatchLosses, model, per_example_loss, num_classes, regime)
    passes: Passes | None = None
    if passes_by_group and isinstance(model, ImageClassifier) and model.suits_loops:
        passes = Blocks()
    elif passes_by_group and capacity is not None:
        passes = Capacity(capacity)

    def train_step(state: TrainState, images: _Images, labels: Labels):
        before, state = state, regime.before_step(state)
        if axis_name is not None:
            shard = jax.lax.axis_index(axis_name)
            state = dataclasses.replace(state, key=jax.random.fold_in(before.key, shard))
        key, batch = jax.random.fold_in(state.key, state.step), (images, labels)
        if regime.mixup:
            batch = mixup(jax.random.fold_in(key, _MIXUP), images, labels, regime.mixup)
        held = ("held_statistics",) if regime.hold_statistics else ()
        clean = losses_of(state, batch, keep=("batch_stats", *held))

        def mean_loss(params):
            losses, statistics = clean(params)
            return losses.mean(), statistics

        (loss, statistics), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        further = losses_of(state, batch, held=statistics.get("held_statistics"))
        options = {"class_losses_fn": further.function(passes), "key": key, "value": loss}
        if ascent_share < 1:
            part = dataclasses.replace(further, batch=first_images(batch, ascent_share))
            options["ascent_losses_fn"] = part.function(passes)
        updates, opt_state = transformation.update(
            gradient, state.opt_state, state.params, **options
        )
        # A second pass for the loss that a method has measured would not be for free.
        if (method := method_state(opt_state)) is not None:
            loss = method.loss
        batch_stats = statistics.get("batch_stats", {})
        if axis_name is not None:
            loss, batch_stats = jax.lax.pmean((loss, batch_stats), axis_name)
        after = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            key=before.key,
            loss_sum=state.loss_sum + loss,
        )
        return unless_finite(before, after, loss) if skip_nonfinite else (after, loss)

    return train_step


def make_logits_fn(
    model: nn.Module,
    spectral_norm: SpectralNorm | None = None,
    *,
    out_sharding: Sharding | None = None,
) -> Callable[[TrainState, _Images], Float[Array, "batch classes"]]:
    """Builds the jitted inference `(state, images) -> logits`, on running statistics.

    Args:
        model: called as `model(images, train=...)`.
        spectral_norm: of the stage.
        out_sharding: of the logits; None for what follows from the arguments'.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxlt import models, training
        >>> model = models.create_model("mlp", 10, image_shape=(8, 8, 1))
        >>> state = training.make_state_fn(model, optax.sgd(0.1), (8, 8, 1))(0)
        >>> training.make_logits_fn(model)(state, jnp.zeros((4, 8, 8, 1))).shape
        (4, 10)
    """

    @functools.partial(jax.jit, out_shardings=out_sharding)
    def logits(state: TrainState, images: _Images) -> Float[Array, "batch classes"]:
        params = state.params
        if spectral_norm is not None:
            params = spectral_norm(params, state.singular_vectors)
        return jnp.asarray(model.apply(state.variables(params), images, train=False))

    return logits
