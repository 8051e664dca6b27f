"""m-sharpness: each device perturbs by its own part of the batch, in training loops you map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from jaxlt.batch.over_axis import varying


def per_shard(
    method: optax.GradientTransformation, axis_name: str | tuple[str, ...]
) -> optax.GradientTransformationExtraArgs:
    """m-sharpness (Foret et al., ICLR 2021, section 4.1): each shard perturbs for itself.

    For use inside `jax.shard_map`, with or without `check_vma`, and `jax.pmap`. The method sees a
    shard's m images alone: their gradient, its norm, their class counts. `per_shard` then averages
    its result over the axis, and the floating-point leaves of its state, so that both are the same
    on all devices. A step takes one all-reduce of the gradient's size; a perturbation by the global
    batch (`jaxlt.over_axis`) takes one for every gradient. Shards must be of equal size. Padding in
    a shard makes its images weigh more.

    Give `update` the gradient of the shard's own mean loss and the `class_losses_fn` of its own
    images; sum neither over the axis. Under `check_vma=True`, JAX sums gradients by parameters
    that are the same on all devices: differentiate by `jax.lax.pcast(params, axis_name,
    to="varying")` instead. Within `class_losses_fn` the parameters are marked already.

    Each shard draws random directions of its own (`cc_sam(direction="random")`,
    `random_perturbation`). Its index along the axis is folded into `key`, or into a fixed key where
    `update` gets none; the method's seed is folded into that.

    Args:
        method: one of jaxlt's, or `optax.identity()` for plain averaging. Chain what follows it
            (clipping, momentum) behind `per_shard`, where it sees the average.
        axis_name: mapped axis or axes over which the batch is spread.

    Raises:
        ValueError: at `update`, the gradient was summed over the devices.

    Example:
        >>> import jax, jaxlt
        >>> P, mesh = jax.sharding.PartitionSpec, jax.sharding.Mesh(jax.devices()[:1], "batch")
        >>> tx = jaxlt.per_shard(jaxlt.sam(rho=0.5), "batch")
        >>> @jax.jit
        ... @jax.shard_map(mesh=mesh, in_specs=(P(), P("batch"), P("batch")), out_specs=P())
        ... def gradient(w, x, labels):  # image x loses w * x
        ...     def losses_fn(w):
        ...         return jaxlt.class_losses(w * x, labels, num_classes=2)
        ...     own_w = jax.lax.pcast(w, "batch", to="varying")
        ...     own = jax.grad(lambda w: losses_fn(w).mean())(own_w)
        ...     return tx.update(own, tx.init(w), w, class_losses_fn=losses_fn)[0]
        >>> print(gradient(1.0, jax.numpy.array([1.0, 3.0]), jax.numpy.array([0, 1])))
        2.0
    """
    method = optax.with_extra_args_support(method)

    def mean(leaf: jax.Array, otherwise: jax.Array) -> jax.Array:
        inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if inexact else otherwise

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        key: PRNGKeyArray | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        leaves: list[Any] = jax.tree.leaves(updates)
        # Some leaf of a shard's gradient may be the same everywhere: that of an unused parameter.
        if all(jax.typeof(x) != jax.typeof(varying(x, axis_name)) for x in leaves):
            raise ValueError(
                "updates must be the gradient of the shard's own loss, got one summed over devices:"
                f" differentiate by jax.lax.pcast(params, {axis_name!r}, to='varying')"
            )
        shard = jax.lax.axis_index(axis_name)
        own_key = jax.random.fold_in(jax.random.key(0) if key is None else key, shard)
        own, params = varying((updates, params), axis_name)
        own, state = method.update(own, state, params, key=own_key, **extra_args)
        # A step count, or of a parameter without derivative, is the same on all devices.
        return jax.tree.map(mean, own, updates), jax.tree.map(mean, state, state)

    return optax.GradientTransformationExtraArgs(method.init, update_fn)
