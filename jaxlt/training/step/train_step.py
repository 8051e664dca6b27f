"""One training step, to be compiled by a `Program`, and the inference function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec, Sharding

from jaxlt.batch.factored_losses import Blocks, Capacity, Passes
from jaxlt.models import ImageClassifier
from jaxlt.training.step.batch_losses import BatchLosses
from jaxlt.training.step.finite_steps import unless_finite
from jaxlt.training.step.mixup import mixup
from jaxlt.training.step.network_pass import (
    NetworkPass,
    PerExampleLoss,
    Regime,
    moment_of,
    with_vectors_of_step,
)
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.state import TrainState, method_state

TrainStep: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]

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
        skip_nonfinite: whether a step whose loss or update is not finite changes nothing, see
            `unless_finite`.
        axis_name: mapped axis over which the batch is spread, where each shard of it is a batch of
            its own until its gradient is there (see `over_shards`); the transformation averages
            those, as `jaxlt.per_shard` does. None where the step sees the whole batch.
    """
    regime = regime or Regime()
    transformation = optax.with_extra_args_support(transformation)
    losses_of = BatchLosses(model, per_example_loss, num_classes, regime)
    passes = _passes(model, capacity) if passes_by_group else None

    def train_step(state: TrainState, images: jax.Array, labels: jax.Array):
        before, state = state, with_vectors_of_step(state, regime)
        if axis_name is not None:
            shard = jax.lax.axis_index(axis_name)
            state = dataclasses.replace(state, key=jax.random.fold_in(before.key, shard))
        key, moment = jax.random.fold_in(state.key, state.step), moment_of(state, regime)
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
            class_losses_fn=losses_of.function(further_pass, batch, moment, passes),
            key=key,
        )
        # A second pass for the loss that a method has measured would not be for free.
        method = method_state(opt_state)
        loss = loss if method is None else method.loss
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


def _passes(model: nn.Module, capacity: int | None) -> Passes | None:
    if isinstance(model, ImageClassifier) and model.suits_loops:
        return Blocks()
    return None if capacity is None else Capacity(capacity)


def over_shards(step: TrainStep, mesh: Mesh) -> TrainStep:
    """Maps a step over the shards of a batch, one a device of the mesh.

    With a transformation under `jaxlt.per_shard` that is m-sharpness (Foret et al., ICLR 2021,
    section 4.1): each device perturbs along the gradient of its own images. Batch norm, mixup and
    dropout are a shard's own too; running statistics are averaged.

    Args:
        step: made with the name of the mesh's axis.
        mesh: of one axis, along which the batch is divided evenly.
    """
    whole, divided = PartitionSpec(), PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(whole, divided, divided),
        out_specs=(whole, whole),
        # A shard's gradient is its own until it is averaged.
        check_vma=False,
    )


def make_logits_fn(
    model: nn.Module,
    spectral_norm: SpectralNorm | None = None,
    *,
    out_sharding: Sharding | None = None,
) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Builds the jitted inference `(state, images) -> logits`, on running statistics.

    Args:
        model: called as `model(images, train=...)`.
        spectral_norm: of the stage; None for none.
        out_sharding: of the logits; None for what the arguments' makes of it.
    """

    @functools.partial(jax.jit, out_shardings=out_sharding)
    def logits(state: TrainState, images: jax.Array) -> jax.Array:
        params = state.params
        if spectral_norm is not None:
            params = spectral_norm(params, state.singular_vectors)
        return jnp.asarray(model.apply(state.variables(params), images, train=False))

    return logits
