"""Makes an optax link of a method: it counts steps, checks its arguments, keeps measurements."""

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, Float, PRNGKeyArray

from jaxlt.batch.class_losses import ClassLossesFn
from jaxlt.sharpness.equation import Perturbed
from jaxlt.sharpness.perturbation import Mask, Scope
from jaxlt.sharpness.state import SharpnessState, StepContext


def sharpness_transformation(
    gradient_fn: Callable[[StepContext], Perturbed], num_groups: int, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Makes a link of `optax.chain`; its `update` takes params and `class_losses_fn=`."""

    def init_fn(params: optax.Params) -> SharpnessState:
        _check_what_stands_around()
        _check_whole_tree(params)
        _are_real(params)
        if jax.tree.leaves(params):
            _warn_of_short_floats(params, mask)
        # Two arrays, not one twice: a donated state may not hold the same buffer twice.
        norms, sharpness = (jnp.zeros(num_groups, jnp.float32) for _ in range(2))
        loss, bounded = (jnp.zeros([], jnp.float32) for _ in range(2))
        return SharpnessState(jnp.zeros([], jnp.int32), loss, norms, sharpness, bounded)

    def update_fn(
        updates: optax.Updates,
        state: SharpnessState,
        params: optax.Params | None = None,
        *,
        class_losses_fn: ClassLossesFn | None = None,
        key: PRNGKeyArray | None = None,
        value: Float[ArrayLike, ""] | None = None,
        ascent_losses_fn: ClassLossesFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SharpnessState]:
        call = "call update(grads, state, params, class_losses_fn=...)"
        if not callable(class_losses_fn):
            raise ValueError(
                "class_losses_fn must be a function from params to jaxlt.ClassLosses, got "
                f"{type(class_losses_fn).__name__}: {call} yourself, since TrainState of Flax and "
                "some wrappers of optax do not pass it on; jaxlt/methods/README.md has your loop"
            )
        if params is None:
            raise ValueError(f"params must be given, got None: {call}")
        _check_whole_tree(params)
        real = _are_real(params)
        _check_same_leaves(updates, params)
        step = StepContext(
            class_losses_fn, params, updates, state.count, key, value, ascent_losses_fn
        )
        if real:
            result = gradient_fn(step)
        else:
            from jaxlt.sharpness.real_parts import gradient_by_real_parts

            result = gradient_by_real_parts(gradient_fn, step, num_groups)
        gradient = jax.tree.map(
            lambda g, u: g if g is u else g.astype(u.dtype), result.gradient, updates
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        measured = (jnp.asarray(x).astype(jnp.float32) for x in result[1:])
        return gradient, SharpnessState(count, *measured)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


# What to write in place of a wrapper of optax around a method.
_INSTEAD = {
    "MultiSteps": "write optax.chain(method, optax.MultiSteps(optimizer, k))",
    "flatten": "write optax.chain(method, optax.flatten(optimizer))",
    "lookahead": "call method.update yourself, with params.fast, and hand its result to lookahead",
    "contrib.sam": "take one of the two, which both are SAM",
    "contrib.split_real_and_imaginary": "leave it out, since methods take complex parameters",
}


def _check_what_stands_around() -> None:
    """Looks for wrappers of optax that call this `init`: within them `update` would fail, or lie.

    Nothing that `init` is handed tells of them, so this looks for their files on the stack. Each is
    alone in its file among what wraps others.
    """
    files, frame = set(), sys._getframe(2)
    while frame is not None:
        files.add(frame.f_code.co_filename)
        frame = frame.f_back
    for name, instead in _INSTEAD.items():
        package = optax.contrib if name.startswith("contrib.") else optax
        wrapper = getattr(package, name.rpartition(".")[2], None)
        if wrapper is None or inspect.getfile(wrapper) not in files:
            continue
        if name != "MultiSteps":
            raise ValueError(f"the method must not stand within optax.{name}: {instead}")
        # Right where class_losses_fn takes all micro-batches, which nothing here tells.
        warnings.warn(
            "the method should not stand within optax.MultiSteps, where it perturbs along the last "
            f"micro-batch alone: {instead}",
            stacklevel=3,
        )


def _check_whole_tree(params: optax.Params) -> None:
    if isinstance(params, optax.LookaheadParams):
        raise ValueError(
            "params must be the tree that class_losses_fn takes, got LookaheadParams: "
            f"{_INSTEAD['lookahead']}"
        )
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            "params must be the whole tree that class_losses_fn takes, got one pruned by "
            "optax.masked or optax.multi_transform: put the method before them in the chain and "
            "choose the perturbed leaves by its own mask="
        )


def _check_same_leaves(updates: optax.Updates, params: optax.Params) -> None:
    got, wanted = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(t)}
        for t in (updates, params)
    )
    for name in (name for name in got | wanted if got.get(name) != wanted.get(name)):
        found, right = (tree.get(name, "no leaf") for tree in (got, wanted))
        raise ValueError(
            f"updates must have the leaves and shapes of params, got {found} for {right} at "
            f"{name or 'the root'}"
        )
    found, right = map(jax.tree.structure, (updates, params))
    if found != right:
        raise ValueError(f"updates must have the containers of params, got {found} for {right}")


def _are_real(params: optax.Params) -> bool:
    """Tells whether there are parameters and all are real; refuses what are no arrays."""
    leaves = jax.tree.leaves(params)
    if all(hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        return bool(leaves)
    from jaxlt.sharpness.real_parts import check_leaves

    check_leaves(params)
    return False


def _warn_of_short_floats(params: optax.Params, mask: Mask) -> None:
    dtypes = {jnp.result_type(leaf) for leaf in Scope(params, mask).theta}
    short = [d for d in dtypes if jnp.issubdtype(d, jnp.floating) and jnp.finfo(d).bits < 32]
    if short:
        warnings.warn(
            "params that are perturbed should have at least 32 bits, got "
            f"{', '.join(map(str, short))}: a radius of usual size is lost in their rounding; keep "
            "float32 parameters and compute in 16 bits",
            stacklevel=3,
        )
