"""Everything that training carries from one step to the next, as one pytree."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlt.models import ImageClassifier
from jaxlt.models.adaptation.trainable import join
from jaxlt.models.weights.kept_classes import KeptClasses
from jaxlt.sharpness.state import SharpnessState
from jaxlt.training.step.spectral_norm import SpectralNorm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of a run after `step` steps.

    Attributes:
        step: steps taken, in all stages of the run.
        params: parameters of the network: what is trained, in whichever stage.
        batch_stats: running statistics of batch norm, empty without it.
        singular_vectors: of the kernels under spectral normalization, empty without it.
        opt_state: state of the optax transformation.
        key: PRNG key of the run; step s draws from `fold_in(key, s)`.
        loss_sum: sum of the batch-mean losses since the last evaluation, here so that a run
            resumed between two evaluations reports the same mean as one that never stopped.
        frozen: parameters that no stage trains, those of a pretrained network under adaptation;
            no part of gradients, of the optimizer, or of checkpoints.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    singular_vectors: Any
    opt_state: optax.OptState
    key: PRNGKeyArray
    loss_sum: Float[Array, ""]
    frozen: Any = dataclasses.field(default_factory=dict)

    def variables(self, params: Any | None = None) -> dict[str, Any]:
        """Returns what the network is applied to, at its own or at other trained parameters."""
        trained: Any = self.params if params is None else params
        whole = join(trained, self.frozen) if self.frozen else trained
        return {"params": whole, "batch_stats": self.batch_stats}


def make_state_fn(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    spectral_norm: SpectralNorm | None = None,
    weights: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[int], TrainState]:
    """Builds the jitted initialization, from a seed to the state before the first step.

    The seed is that of the initial parameters and of whatever the steps draw. ValueError if the
    network has no place for some of the weights.

    Args:
        model: called as `model(images, train=...)`; an `ImageClassifier` says what is frozen.
        transformation: the whole optimizer.
        image_shape: (height, width, channels).
        spectral_norm: of the first stage.
        weights: variables that replace those drawn, such as those of `load_torch_weights`; leaves
            of the classifier may be `KeptClasses`.

    Example:
        >>> import optax
        >>> from jaxlt import models, training
        >>> model = models.create_model("mlp", 10, image_shape=(8, 8, 1))
        >>> state = training.make_state_fn(model, optax.sgd(0.1), (8, 8, 1))(0)
        >>> state.params["classifier"]["kernel"].shape
        (256, 10)
    """

    @jax.jit
    def initialize(init_key: PRNGKeyArray, key: PRNGKeyArray, weights: Any) -> TrainState:
        drawn = model.init(init_key, jnp.zeros((1, *image_shape)), train=False)
        variables = _overlaid(drawn, weights)
        params, frozen = variables["params"], {}
        if isinstance(model, ImageClassifier):
            params, frozen = model.split(params)
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            singular_vectors=spectral_norm.init(params) if spectral_norm else {},
            opt_state=transformation.init(params),
            key=key,
            loss_sum=jnp.zeros([]),
            frozen=frozen,
        )

    # Arguments, since constants of hundreds of megabytes would be part of the program.
    return lambda seed: initialize(*jax.random.split(jax.random.key(seed)), weights or {})


def _overlaid(drawn: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    leaves: dict[Any, Any] = flatten_dict(drawn)
    given: dict[Any, Any] = flatten_dict(weights)
    if unknown := given.keys() - leaves.keys():
        raise ValueError(f"weights must be of the network, it has no {'/'.join(min(unknown))}")
    for path, leaf in given.items():
        leaves[path] = leaf.over(leaves[path]) if isinstance(leaf, KeptClasses) else leaf
    return unflatten_dict(leaves)


def method_state(opt_state: optax.OptState) -> SharpnessState | None:
    """Returns what a sharpness-aware method of the optimizer has measured, None without one."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, SharpnessState))
    return next((node for node in states if isinstance(node, SharpnessState)), None)
