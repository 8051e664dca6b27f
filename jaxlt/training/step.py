"""One training step and the inference function, both jitted."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxlt.class_losses import ClassLosses, class_losses
from jaxlt.training.state import TrainState

# (logits (B, C), labels (B,), step ()) -> losses (B,)
PerExampleLoss: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]


def make_train_step(
    model: nn.Module,
    transformation: optax.GradientTransformation,
    per_example_loss: PerExampleLoss,
    num_classes: int,
) -> TrainStep:
    """Builds the jitted step `(state, images, labels) -> (state, batch-mean loss)`.

    The state is donated: the one passed in must not be used again. All passes see the same
    images and draw the same random numbers, in training mode over the whole batch; running
    statistics of batch norm are those of the clean pass.

    Args:
        model: called as `model(images, train=True)`.
        transformation: any optax transformation; it is handed `class_losses_fn`.
        per_example_loss: from logits, labels and step to losses.
        num_classes: C.
    """
    transformation = optax.with_extra_args_support(transformation)

    def train_step(state: TrainState, images: jax.Array, labels: jax.Array):
        dropout_key = jax.random.fold_in(state.key, state.step)

        def losses_and_statistics(params) -> tuple[ClassLosses, Any]:
            logits, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            losses = per_example_loss(logits, labels, state.step)
            return class_losses(losses, labels, num_classes), updated.get("batch_stats", {})

        def mean_loss(params):
            losses, batch_stats = losses_and_statistics(params)
            return losses.mean(), batch_stats

        (loss, batch_stats), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = transformation.update(
            gradient,
            state.opt_state,
            state.params,
            class_losses_fn=lambda params: losses_and_statistics(params)[0],
        )
        after = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            key=state.key,
            loss_sum=state.loss_sum + loss,
        )
        return after, loss

    return jax.jit(train_step, donate_argnums=0)


def make_logits_fn(model: nn.Module) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Builds the jitted inference `(state, images) -> logits`, on running statistics."""

    @jax.jit
    def logits(state: TrainState, images: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return jnp.asarray(model.apply(variables, images, train=False))

    return logits
