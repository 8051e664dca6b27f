"""Stochastic weight averaging (Izmailov et al., UAI 2018)."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Int, Shaped

from jaxlt.models.networks.convolution import HELD_STATISTICS


class WeightAverageState(NamedTuple):
    """State of `weight_average`; the average is the initial parameters before there is any."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride] (optax's name)
    num_averaged: Int[Array, ""]
    average: Any


def weight_average(
    first_epoch: int, *, num_images: int, batch_size: int
) -> optax.GradientTransformation:
    """Averages parameters along a run and leaves the updates alone.

    An epoch is the real number of batches that the images make: epoch e, from 0, ends with step
    number `ceil((e + 1) * num_images / batch_size)`, counted from 1. What these steps leave behind
    is averaged with equal weights, from epoch `first_epoch` on.

    It must be the last link of a chain, since it takes the updates for those that will be applied.

    Args:
        first_epoch: at least 0.
        num_images: training images, at least 1.
        batch_size: images a step, at least 1.

    Returns:
        A transformation with state `WeightAverageState`, whose `update` takes `params`.

    Raises:
        ValueError: an argument is too small.
    """
    for name, value, least in (
        ("first_epoch", first_epoch, 0),
        ("num_images", num_images, 1),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")

    def init_fn(params: optax.Params) -> WeightAverageState:
        # A copy, since a donated state may not share its buffers with the parameters.
        average = jax.tree.map(jnp.copy, params)
        return WeightAverageState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), average)

    def update_fn(
        updates: optax.Updates, state: WeightAverageState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, WeightAverageState]:
        if params is None:
            raise ValueError("params must be given, got None: call update(grads, state, params)")
        count = jnp.asarray(optax.safe_increment(state.count))
        epochs, before = (number * batch_size // num_images for number in (count, count - 1))
        taken = (epochs > before) & (epochs > first_epoch)
        num_averaged = state.num_averaged + taken
        share = taken / jnp.maximum(num_averaged, 1)
        average = jax.tree.map(
            lambda mean, leaf: ((1 - share) * mean + share * leaf).astype(mean.dtype),
            state.average,
            optax.apply_updates(params, updates),
        )
        return updates, WeightAverageState(count, num_averaged, average)

    return optax.GradientTransformation(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def averaged_params(opt_state: optax.OptState, params: Any) -> Any:
    """Returns the average that an optimizer's state holds, or `params` if it is of none yet."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, WeightAverageState))
    state = next((node for node in nodes if isinstance(node, WeightAverageState)), None)
    if state is None:
        raise ValueError("opt_state must hold a WeightAverageState, it has none")
    return jax.tree.map(
        lambda mean, leaf: jnp.where(state.num_averaged > 0, mean, leaf), state.average, params
    )


def recomputed_statistics(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    batches: Iterable[Shaped[Array | np.ndarray, "batch ..."]],
) -> Any:
    """Computes batch norm's running statistics anew, for parameters that no step has left behind.

    Mean and variance of each layer, a `jaxlt.models.BatchNorm`, are averages, with equal weights,
    of those of each batch of images in training mode. They stay where a layer
    normalizes by its running statistics in training mode too.
    """
    if not jax.tree.leaves(batch_stats):
        return batch_stats

    @jax.jit
    def statistics_of(variables: Any, images: Array) -> Any:
        mutable = ["batch_stats", HELD_STATISTICS]
        return model.apply(variables, images, train=True, mutable=mutable)[1][HELD_STATISTICS]

    total, num_batches = None, 0
    for images in batches:
        found = statistics_of({"params": params, "batch_stats": batch_stats}, images)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        num_batches += 1
    if not num_batches:
        raise ValueError("batches must hold at least one batch of images, got none")
    means = jax.tree.map(lambda leaf: leaf / num_batches, total)
    return unflatten_dict({**flatten_dict(batch_stats), **flatten_dict(means)})
