"""A program for eight devices: prints how far each method's sharded update is from the plain one.

`test_sharding.py` runs it in a process of its own, where the devices can be made. Its arguments are
the maps to use, some of `MAPS`; with `shard_map` goes what JAX does itself.
"""

import functools
import json
import sys
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small_problems import (
    METHODS,
    NUM_CLASSES,
    batch,
    factored,
    initial_params,
    is_classifier,
    largest_difference,
    logits,
)

import jaxlt

TRANSFORMATIONS = {
    "plain gradient": lambda: optax.with_extra_args_support(optax.identity()),
    **METHODS,
    "cc_sam classifier": functools.partial(METHODS["cc_sam"], mask=is_classifier),
    "cc_sam random": functools.partial(METHODS["cc_sam"], direction="random", seed=3),
    "random_perturbation": functools.partial(jaxlt.random_perturbation, 0.1, seed=3),
}
# Its program is cc_sam's, and random_perturbation draws as it does: not worth compiling again.
LEFT_OUT = ("cc_sam random",)
FACTORED = ("imb_sam", "sse_sam", "cc_sam", "cc_sam classifier")
SWITCHED = {"sse_sam switched": functools.partial(METHODS["sse_sam"], switch_step=1)}


class Result(NamedTuple):
    updates: dict[str, jax.Array]
    state: list[jax.Array]  # float32, whatever the parameters are
    losses: jaxlt.ClassLosses


def plain_losses(x, y, **options):
    def class_losses_fn(p):
        per_example = jaxlt.losses.cross_entropy(logits(p, x), y)
        return jaxlt.class_losses(per_example, y, NUM_CLASSES, **options)

    return class_losses_fn


def step(transformations, params, x, y, losses_of=plain_losses, key=None, by=lambda p: p):
    """One step of each transformation, in one program since compiling takes the test's time."""
    class_losses_fn = losses_of(x, y)
    gradient = jax.grad(lambda p: class_losses_fn(p).mean())(by(params))
    losses, results = class_losses_fn(params), {}
    for name, tx in transformations.items():
        options = {} if key is None else {"key": key}
        updates, state = tx.update(
            gradient, tx.init(params), params, class_losses_fn=class_losses_fn, **options
        )
        results[name] = Result(updates, jax.tree.leaves(state), losses)
    return results


def by_jit(axis_type, transformations, params, x, y):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        x, y = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("batch")))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        return jax.jit(functools.partial(step, transformations))(params, x, y)


def by_shard_map(function, params, x, y, *, check_vma=True):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    return jax.jit(mapped)(params, x, y)


def by_pmap(function, params, x, y):
    x, y = (a.reshape(8, -1, *a.shape[1:]) for a in (x, y))
    mapped = jax.pmap(function, axis_name="batch", in_axes=(None, 0, 0))
    of_devices = jax.device_get(mapped(params, x, y))
    for leaf in jax.tree.leaves(of_devices):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
    return jax.tree.map(lambda leaf: leaf[0], of_devices)


MAPS = {
    "shard_map": by_shard_map,
    "unchecked shard_map": functools.partial(by_shard_map, check_vma=False),
    "pmap": by_pmap,
}


def with_axis_name(transformations, params, x, y):
    losses_of = functools.partial(plain_losses, axis_name="batch")
    function = functools.partial(step, transformations, losses_of=losses_of)
    return by_shard_map(function, params, x, y)


def with_over_axis(mapped, transformations, params, x, y):
    transformations = {n: tx for n, tx in transformations.items() if n not in LEFT_OUT}

    def losses_of(x, y):
        return jaxlt.over_axis(plain_losses(x, y), "batch")

    function = functools.partial(step, transformations, losses_of=losses_of)
    return mapped(function, params, x, y)


OF_JAX = {
    "auto": functools.partial(by_jit, AxisType.Auto),
    "explicit": functools.partial(by_jit, AxisType.Explicit),
    "axis_name": with_axis_name,
}


def with_own_perturbations(mapped, transformations, params, x, y, losses_of=plain_losses):
    wrapped = {name: jaxlt.per_shard(tx, "batch") for name, tx in transformations.items()}

    def run(params, x, y):
        mark = functools.partial(jax.lax.pcast, axis_name="batch", to="varying")
        results = step(wrapped, params, x, y, losses_of, by=mark)
        # The losses are a shard's own: what remains is the same on all devices.
        return {name: (result.updates, result.state) for name, result in results.items()}

    return mapped(run, params, x, y)


def shard_by_shard(transformations, params, x, y):
    """m-sharpness by definition, one shard after the other on one device."""
    own_step = jax.jit(functools.partial(step, transformations))
    results = [
        own_step(params, *shard, key=jax.random.fold_in(jax.random.key(0), index))
        for index, shard in enumerate(zip(np.split(x, 8), np.split(y, 8), strict=True))
    ]
    means = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *results)
    return {name: (result.updates, result.state) for name, result in means.items()}


def differences_of_global_updates(maps, params, x, y):
    transformations = {name: make() for name, make in TRANSFORMATIONS.items()}
    expected = jax.jit(functools.partial(step, transformations))(params, x, y)
    ways = dict(OF_JAX) if "shard_map" in maps else {}
    ways |= {f"over_axis, {way}": functools.partial(with_over_axis, MAPS[way]) for way in maps}
    for way, run in ways.items():
        actual = jax.device_get(run(transformations, params, x, y))
        for name in actual:
            yield f"{name}, {way}", differences(actual[name], expected[name])


def differences_of_own_perturbations(maps, params, x, y):
    chosen = {n: make for n, make in (TRANSFORMATIONS | SWITCHED).items() if n not in LEFT_OUT}
    transformations = {name: make() for name, make in chosen.items()}
    expected = shard_by_shard(transformations, params, x, y)
    for way in maps:
        actual = with_own_perturbations(MAPS[way], transformations, params, x, y)
        for name in transformations:
            yield f"{name}, {way}", differences(actual[name], expected[name])
    if "shard_map" not in maps:
        return
    chosen = {name: transformations[name] for name in FACTORED}
    blocks = functools.partial(factored, passes=jaxlt.Blocks((2,)))
    actual = with_own_perturbations(by_shard_map, chosen, params, x, y, blocks)
    for name in FACTORED:
        yield f"{name}, factored", differences(actual[name], expected[name])


def differences(actual, expected):
    """Of the updates, over their largest entry, and of what is accumulated in 32 bits."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected[0]))
    updates = largest_difference(actual[0], expected[0]) / largest
    # The plain gradient has no state.
    return updates, largest_difference([*actual[1:], 0.0], [*expected[1:], 0.0])


def main():
    assert jax.device_count() == 8
    maps, params, (x, y) = sys.argv[1:], initial_params(), batch(2)
    found = {
        "global": dict(differences_of_global_updates(maps, params, x, y)),
        "own": dict(differences_of_own_perturbations(maps, params, x, y)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
