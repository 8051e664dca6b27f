"""Everything that training carries from one step to the next, as one pytree."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxlt.training.spectral_norm import SpectralNorm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of a run after `step` steps.

    Attributes:
        step: () int32, steps taken, in all stages of the run.
        params: parameters of the network, trained or not.
        batch_stats: running statistics of batch norm, empty without it.
        singular_vectors: of the kernels under spectral normalisation, empty without it.
        opt_state: state of the optax transformation.
        key: PRNG key of the run; step s draws from `fold_in(key, s)`.
        loss_sum: () sum of the batch-mean losses since the last evaluation. It lives here so that a
            run resumed between two evaluations reports the same mean as one that never stopped.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    singular_vectors: Any
    opt_state: optax.OptState
    key: jax.Array
    loss_sum: jax.Array


def make_state_fn(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    spectral_norm: SpectralNorm | None = None,
    weights: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[int], TrainState]:
    """Builds the jitted initialisation, from a seed to the state before the first step.

    Args:
        model: called as `model(images, train=...)`.
        transformation: the whole optimizer.
        image_shape: (height, width, channels).
        spectral_norm: of the first stage.
        weights: modules' variables by collection and name, such as `jaxlt.models`'
            `load_initial_weights` returns; they take the place of those drawn. None for none.

    Returns:
        A function of the seed of the initial parameters and of whatever the steps draw.
    """

    @jax.jit
    def initialise(init_key: jax.Array, key: jax.Array, weights: Any) -> TrainState:
        drawn = model.init(init_key, jnp.zeros((1, *image_shape)), train=False)
        variables = {name: {**drawn[name], **weights.get(name, {})} for name in drawn}
        params = variables["params"]
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            singular_vectors=spectral_norm.init(params) if spectral_norm else {},
            opt_state=transformation.init(params),
            key=key,
            loss_sum=jnp.zeros([]),
        )

    # Arguments, since constants of hundreds of megabytes would be part of the program.
    return lambda seed: initialise(*jax.random.split(jax.random.key(seed)), weights or {})


def next_stage(
    state: TrainState,
    params: Any,
    transformation: optax.GradientTransformation,
    spectral_norm: SpectralNorm | None = None,
) -> TrainState:
    """Returns the state in which a further stage begins: a new optimizer on given parameters."""
    return dataclasses.replace(
        state,
        params=params,
        singular_vectors=spectral_norm.init(params) if spectral_norm else {},
        opt_state=transformation.init(params),
        loss_sum=jnp.zeros_like(state.loss_sum),
    )
