"""Steps that leave the state as it was where their loss or update is not finite."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.training.step.state import TrainState


def unless_finite(
    before: TrainState, after: TrainState, loss: Float[Array, ""]
) -> tuple[TrainState, Float[Array, ""]]:
    """Takes a step back if its loss, or a parameter or statistic after it, is not finite.

    It still counts, also in the `count` of each link of the optimizer, so that schedules go on as
    if nothing had happened. Where the update alone is not finite, the loss returned is NaN.
    """
    after_update = jax.tree.leaves((after.params, after.batch_stats))
    sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in after_update]).all()
    finite = jnp.isfinite(loss) & sound

    # Not lax.cond: what is within conditionals, XLA on CPU computes slowly.
    def choose(path: tuple[Any, ...], new: Array, old: Array) -> Array:
        is_count = getattr(path[-1], "name", None) == "count" if path else False
        return new if is_count else jnp.where(finite, new, old)

    names = ("params", "batch_stats", "singular_vectors", "opt_state", "loss_sum")
    chosen = jax.tree_util.tree_map_with_path(
        choose, *({name: getattr(state, name) for name in names} for state in (after, before))
    )
    told = jnp.where(jnp.isfinite(loss) & ~sound, jnp.nan, loss)
    return dataclasses.replace(after, **chosen), told
