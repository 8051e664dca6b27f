"""m-sharpness: perturbations by each device's own part of the batch, for loops of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.over_axis import varying


def per_shard(
    method: optax.GradientTransformation, axis_name: str | tuple[str, ...]
) -> optax.GradientTransformationExtraArgs:
    """m-sharpness (Foret et al., ICLR 2021, section 4.1): each shard perturbs for itself.

    For use inside `jax.shard_map`, with or without `check_vma`, and `jax.pmap`. The method sees a
    shard's m images alone: it perturbs along their gradient, by their norms, and class counts are
    theirs. Its results are then averaged over the axis, and so are the floating-point leaves of
    its state: what it measured, such as `SharpnessState.loss`. So updates and state are the same
    on all devices. Nothing is reduced before the perturbed gradient is there: one all-reduce of
    the gradient's size a step, where a perturbation by the global batch (`jaxlt.over_axis`) takes
    one for every gradient. Shards must be of equal size; padding within one weighs its images more.

    Give `update` the gradient of the shard's own mean loss and the `class_losses_fn` of its own
    images, neither summed over the axis. Under `check_vma=True`, JAX sums gradients by parameters
    that are the same on all devices by itself: take yours by `jax.lax.pcast(params, axis_name,
    to="varying")`. A gradient by `params` themselves raises an error there. Within
    `class_losses_fn` the parameters are marked so already.

    Random directions (`cc_sam(direction="random")`, `random_perturbation`) are drawn for each shard
    afresh: its index along the axis is folded into `key`, or into a fixed key where `update` gets
    none, and the method's seed decides with that.

    Args:
        method: one of jaxlt's, or `optax.identity()` for plain averaging. What follows it in a
            chain (clipping, momentum) goes behind `per_shard`, where it sees the average.
        axis_name: mapped axis or axes over which the batch is spread.

    Returns:
        A transformation whose `update` takes what the method's takes.

    Raises:
        ValueError: at `update`, if the gradient was summed over the devices.
    """
    method = optax.with_extra_args_support(method)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        _check_own(updates, axis_name)
        shard = jax.lax.axis_index(axis_name)
        own_key = jax.random.fold_in(jax.random.key(0) if key is None else key, shard)
        updates, state = method.update(
            varying(updates, axis_name),
            state,
            varying(params, axis_name),
            key=own_key,
            **extra_args,
        )
        return jax.lax.pmean(updates, axis_name), _mean_of_measured(state, axis_name)

    return optax.GradientTransformationExtraArgs(method.init, update_fn)


def _check_own(gradient: optax.Updates, axis_name: str | tuple[str, ...]) -> None:
    """Raises ValueError where JAX's account of the devices says that no leaf is a shard's own."""
    leaves: list[Any] = jax.tree.leaves(gradient)
    # Some leaf of a shard's gradient may be the same everywhere: that of a parameter without use.
    if all(jax.typeof(x) != jax.typeof(varying(x, axis_name)) for x in leaves):
        raise ValueError(
            "updates must be the gradient of the shard's own loss, got the same on all devices: "
            f"differentiate by jax.lax.pcast(params, {axis_name!r}, to='varying')"
        )


def _mean_of_measured(state: optax.OptState, axis_name: str | tuple[str, ...]) -> optax.OptState:
    def mean(leaf: jax.Array) -> jax.Array:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jax.lax.pmean(leaf, axis_name) if floating else leaf

    return jax.tree.map(mean, state)
