"""A program for eight devices: prints how far each method's sharded update is from the plain one.

`test_sharding.py` runs it in a process of its own, where the devices can be made.
"""

import functools
import json

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small_problems import (
    METHODS,
    NUM_CLASSES,
    batch,
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


def step(tx, params, x, y, axis_name=None):
    def class_losses_fn(p):
        per_example = jaxlt.losses.cross_entropy(logits(p, x), y)
        return jaxlt.class_losses(per_example, y, NUM_CLASSES, axis_name=axis_name)

    gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
    updates, state = tx.update(gradient, tx.init(params), params, class_losses_fn=class_losses_fn)
    return updates, jax.tree.leaves(state), class_losses_fn(params)


def by_jit(axis_type, tx, params, x, y):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        x, y = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("batch")))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        return jax.jit(functools.partial(step, tx))(params, x, y)


def by_shard_map(tx, params, x, y):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        functools.partial(step, tx, axis_name="batch"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
    )
    return jax.jit(mapped)(params, x, y)


WAYS = {
    "auto": functools.partial(by_jit, AxisType.Auto),
    "explicit": functools.partial(by_jit, AxisType.Explicit),
    "shard_map": by_shard_map,
}


def main():
    assert jax.device_count() == 8
    params, (x, y) = initial_params(), batch(2)
    differences = {}
    for name, make in TRANSFORMATIONS.items():
        expected = jax.jit(functools.partial(step, make()))(params, x, y)
        for way, run in WAYS.items():
            # Gathered first: arrays of two meshes do not mix in one operation.
            actual = jax.tree.map(jnp.asarray, jax.device_get(run(make(), params, x, y)))
            differences[f"{name}, {way}"] = largest_difference(actual, expected)
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
