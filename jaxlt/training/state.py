"""Everything that training carries from one step to the next, as one pytree."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of a run after `step` steps.

    Attributes:
      step: () int32, steps taken.
      params: trainable parameters.
      batch_stats: running statistics of batch norm, empty without it.
      opt_state: state of the optax transformation.
      key: PRNG key of the run; step s draws from `fold_in(key, s)`.
      loss_sum: () sum of the batch-mean losses since the last evaluation. It lives here so that a
        run resumed between two evaluations reports the same mean as one that never stopped.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    loss_sum: jax.Array


def create_train_state(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Initialises parameters and optimizer state.

    Args:
      model: called as `model(images, train=...)`.
      transformation: the whole optimizer.
      image_shape: (height, width, channels).
      seed: of the initial parameters and of whatever the steps draw.
    """
    init_key, key = jax.random.split(jax.random.key(seed))

    def initialise(key: jax.Array) -> TrainState:
        variables = model.init(init_key, jnp.zeros((1, *image_shape)), train=False)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=transformation.init(params),
            key=key,
            loss_sum=jnp.zeros([]),
        )

    return jax.jit(initialise)(key)
