"""Losses of a batch that is spread over a mapped axis, for loops of one's own on many devices."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from jaxlt.batch.class_losses import ClassLosses, ClassLossesFn

Tree = TypeVar("Tree")


def over_axis(class_losses_fn: ClassLossesFn, axis_name: str | tuple[str, ...]) -> ClassLossesFn:
    """Returns the losses of the global batch, from a function to those of a shard of it.

    For use inside `jax.shard_map`, with or without `check_vma`, and `jax.pmap`: the gradients of
    what is returned, and whatever a method makes of it, are those of the global batch, and the
    same on every device. Its derivative is its own: the cotangents of the parameters are summed
    over the axis, once for each gradient. It has no forward-mode derivative.

    Args:
        class_losses_fn: from params, which are the same on all devices, to the `ClassLosses` of
            the device's own images, summed over no axis. A `FactoredLosses` serves as the plain
            function that it is.
        axis_name: mapped axis or axes over which the batch is spread.
    """

    @jax.custom_vjp
    def of_batch(params: Any) -> ClassLosses:
        return jax.lax.psum(class_losses_fn(varying(params, axis_name)), axis_name)

    def forward(params: Any) -> tuple[ClassLosses, Callable[[ClassLosses], tuple[Any]]]:
        losses, pullback = jax.vjp(class_losses_fn, varying(params, axis_name))
        return jax.lax.psum(losses, axis_name), pullback

    def backward(
        pullback: Callable[[ClassLosses], tuple[Any]], cotangent: ClassLosses
    ) -> tuple[Any]:
        (gradient,) = pullback(varying(cotangent, axis_name))
        return (jax.lax.psum(gradient, axis_name),)

    of_batch.defvjp(forward, backward)
    return of_batch


def varying(tree: Tree, axis_name: str | tuple[str, ...]) -> Tree:
    """Marks arrays as differing between devices, where `jax.shard_map` keeps account of that.

    A derivative by an array so marked is a device's own; by one that is the same on all devices,
    `jax.shard_map` with its default `check_vma=True` sums it over them.

    Args:
        tree: pytree of arrays, which may be marked already.
        axis_name: mapped axis or axes along which they are to differ.
    """

    def mark(leaf: jax.Array, name: str) -> jax.Array:
        try:
            return jax.lax.pcast(leaf, name, to="varying")
        except ValueError:  # it is marked already
            return leaf

    for name in (axis_name,) if isinstance(axis_name, str) else axis_name:
        tree = jax.tree.map(lambda leaf, name=name: mark(leaf, name), tree)
    return tree
