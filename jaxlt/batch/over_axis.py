"""Losses of a batch that is spread over a mapped axis, in training loops you map yourself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from jaxlt.batch.class_losses import ClassLosses, ClassLossesFn

Tree = TypeVar("Tree")


def over_axis(class_losses_fn: ClassLossesFn, axis_name: str | tuple[str, ...]) -> ClassLossesFn:
    """Turns a function to a shard's losses into one to the losses of the global batch.

    For use inside `jax.shard_map`, with or without `check_vma`, and `jax.pmap`. Its gradients, and
    whatever a method makes of it, are those of the global batch and the same on every device. Each
    gradient is summed over the axis once. There is no forward-mode derivative.

    Args:
        class_losses_fn: from params, the same on all devices, to the `ClassLosses` of the device's
            own images, summed over no axis. A `FactoredLosses` counts as a plain function here.
        axis_name: mapped axis or axes over which the batch is spread.

    Example:
        >>> import jax, jaxlt
        >>> P, mesh = jax.sharding.PartitionSpec, jax.sharding.Mesh(jax.devices()[:1], "batch")
        >>> @jax.jit
        ... @jax.shard_map(mesh=mesh, in_specs=(P(), P("batch"), P("batch")), out_specs=P())
        ... def gradient(w, x, labels):  # image x loses w * x
        ...     def losses_fn(w):
        ...         return jaxlt.class_losses(w * x, labels, num_classes=2)
        ...     return jax.grad(lambda w: jaxlt.over_axis(losses_fn, "batch")(w).mean())(w)
        >>> print(gradient(1.0, jax.numpy.array([1.0, 3.0]), jax.numpy.array([0, 1])))
        2.0
    """

    @jax.custom_vjp
    def of_batch(params: Any) -> ClassLosses:
        return jax.lax.psum(class_losses_fn(varying(params, axis_name)), axis_name)

    def forward(params: Any):
        losses, pullback = jax.vjp(class_losses_fn, varying(params, axis_name))
        return jax.lax.psum(losses, axis_name), pullback

    def backward(pullback: Callable[[ClassLosses], tuple[Any]], cotangent: ClassLosses):
        return jax.lax.psum(pullback(varying(cotangent, axis_name)), axis_name)

    of_batch.defvjp(forward, backward)
    return of_batch


def varying(tree: Tree, axis_name: str | tuple[str, ...]) -> Tree:
    """Marks arrays as differing between devices, where `jax.shard_map` tracks that.

    A derivative by a marked array is the device's own, not the sum that `check_vma=True` makes.
    """

    def mark(leaf: jax.Array, name: str) -> jax.Array:
        try:
            return jax.lax.pcast(leaf, name, to="varying")
        except ValueError:  # it is marked already
            return leaf

    for name in (axis_name,) if isinstance(axis_name, str) else axis_name:
        tree = jax.tree.map(lambda leaf, name=name: mark(leaf, name), tree)
    return tree
