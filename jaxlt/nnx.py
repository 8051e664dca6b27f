"""The methods in Flax NNX, whose models change as they compute.

It needs Flax, and so `import jaxlt` leaves it out: write `import jaxlt.nnx`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxlt.batch import known_losses
from jaxlt.batch.class_losses import ClassLosses, ClassLossesFn


def value_and_grad(
    losses_fn: Callable[..., Any], *, has_aux: bool = False, wrt: nnx.filterlib.Filter = nnx.Param
) -> Callable[..., tuple[Any, Any, ClassLossesFn]]:
    """Makes what `nnx.Optimizer.update` needs for a method: loss, gradient, `class_losses_fn`.

    It takes the place of `nnx.value_and_grad` in a loop, as `jaxlt.value_and_grad` does that of
    JAX's. The pass for the gradient is the one that counts: the model keeps its batch statistics
    and its generators of random numbers go on. The method's further passes run on copies of what
    was before. So every pass of a step draws the same dropout masks, and each step moves batch
    norm's running statistics once.

    Args:
        losses_fn: from a model, and what else it is called with, to the batch's
            `jaxlt.ClassLosses`. Generators that the model does not hold, such as an `nnx.Rngs`,
            must be among its arguments. It runs in the mode that the model is in.
        has_aux: whether `losses_fn` returns a pair, of `jaxlt.ClassLosses` and anything else.
        wrt: the variables to differentiate by: the `wrt` of the `nnx.Optimizer`.

    Returns:
        A function that takes the arguments of `losses_fn` and returns the batch-mean loss (with
        `has_aux`, the pair of it and the rest), its gradient, and the `class_losses_fn`.

    Raises:
        TypeError: when called, `losses_fn` returns no `jaxlt.ClassLosses`.

    Example:
        >>> import jax.numpy as jnp, jaxlt.nnx, optax
        >>> from flax import nnx
        >>> def losses_fn(model, images, labels):
        ...     losses = jaxlt.losses.cross_entropy(model(images), labels)
        ...     return jaxlt.class_losses(losses, labels, num_classes=3)
        >>> model = nnx.Linear(2, 3, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
        >>> tx = optax.chain(jaxlt.sam(rho=0.05), optax.sgd(0.1))
        >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        >>> images, labels = jnp.ones((4, 2)), jnp.array([0, 0, 0, 1])
        >>> step = jaxlt.nnx.value_and_grad(losses_fn)
        >>> loss, grads, class_losses_fn = step(model, images, labels)
        >>> updates = optimizer.update(model, grads, value=loss, class_losses_fn=class_losses_fn)
        >>> print(loss)
        1.0986123
    """

    def loss_and_gradient(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, ClassLossesFn]:
        graph, state = nnx.split((model, args, kwargs))
        before = nnx.as_pure(state)

        def losses_and_changes(params: Any) -> tuple[ClassLosses, Any]:
            copy, copied_args, copied_kwargs = nnx.merge(graph, before)
            nnx.update(copy, params)
            result = losses_fn(copy, *copied_args, **copied_kwargs)
            losses, aux = known_losses.losses_and_aux(result, has_aux)
            others = nnx.state([copied_args, copied_kwargs], nnx.Variable)
            return losses, (aux, nnx.state(copy, nnx.Not(wrt)), others)

        params = nnx.state(model, wrt)
        (loss, (aux, *changes)), gradient, class_losses_fn = known_losses.value_and_grad(
            losses_and_changes, has_aux=True
        )(nnx.as_pure(params))
        for changed, change in zip((model, [args, kwargs]), changes, strict=True):
            nnx.update(changed, change)
        gradient = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(gradient))
        return (loss, aux) if has_aux else loss, gradient, class_losses_fn

    return loss_and_gradient
