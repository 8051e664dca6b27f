"""A batch spread over eight devices gives the update of the same batch on one."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from small_problems import METHODS, batch, class_losses_fn_of, initial_params

import jaxlt

TESTS = Path(__file__).parents[1]
NAMES = ("plain gradient", *METHODS, "cc_sam classifier", "random_perturbation")
OTHER_MAPS = ("unchecked shard_map", "pmap")
MAPS = ("shard_map", *(pytest.param(way, marks=pytest.mark.soak) for way in OTHER_MAPS))


@functools.cache
def differences(*maps):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "JAX_NUM_CPU_DEVICES": "8",
        "PYTHONPATH": str(TESTS.parent),
    }
    run = subprocess.run(
        [sys.executable, TESTS / "sharded_updates.py", *maps],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def of_map(way):
    return differences(*(OTHER_MAPS if way in OTHER_MAPS else [way]))


def check(difference):
    """Updates are of 64 bits, what a state measured of 32."""
    updates, measured = difference
    assert updates < 1e-12
    assert measured < 1e-6


@pytest.mark.parametrize("way", ["auto", "explicit", "axis_name"])
@pytest.mark.parametrize("name", [*NAMES, "cc_sam random"])
def test_sharded_update_equals_that_of_one_device(name, way):
    """Updates, states and class losses."""
    check(differences("shard_map")["global"][f"{name}, {way}"])


@pytest.mark.parametrize("way", MAPS)
@pytest.mark.parametrize("name", NAMES)
def test_over_axis_gives_the_update_of_the_global_batch(name, way):
    """Updates, states and class losses, on every device."""
    check(of_map(way)["global"][f"{name}, over_axis, {way}"])


@pytest.mark.parametrize("way", MAPS)
@pytest.mark.parametrize("name", [*NAMES, "sse_sam switched"])
def test_per_shard_is_the_mean_of_the_shards_own_updates(name, way):
    """Updates and states, against each shard alone on one device."""
    check(of_map(way)["own"][f"{name}, {way}"])


@pytest.mark.parametrize("name", ["imb_sam", "sse_sam", "cc_sam", "cc_sam classifier"])
def test_per_shard_takes_the_savings_of_factored_losses(name):
    check(differences("shard_map")["own"][f"{name}, factored"])


def on_one_device(function, *args):
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch")
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    return jax.jit(mapped)(*args)


def test_per_shard_refuses_a_gradient_that_was_summed_over_devices():
    tx = jaxlt.per_shard(jaxlt.sam(0.1), "batch")

    def step(params, x, y):
        losses_fn = class_losses_fn_of(x, y)
        gradient = jax.grad(lambda p: losses_fn(p).mean())(params)
        return tx.update(gradient, tx.init(params), params, class_losses_fn=losses_fn)[0]

    with pytest.raises(ValueError, match=r"jax\.lax\.pcast\(params, 'batch', to='varying'\)"):
        on_one_device(step, initial_params(), *batch(2))


def test_per_shard_lets_a_parameter_without_use_be():
    tx = jaxlt.per_shard(optax.identity(), "batch")

    def step(params, x, y):
        losses_fn = class_losses_fn_of(x, y)
        mine = jax.lax.pcast(params, "batch", to="varying")
        gradient = jax.grad(lambda p: losses_fn(p).mean())(mine) | {"unused": jnp.zeros(2)}
        return tx.update(gradient, tx.init(params), params | {"unused": jnp.ones(2)})[0]

    updates = on_one_device(step, initial_params(), *batch(2))
    assert (updates["unused"] == 0).all()
    assert (updates["classifier.bias"] != 0).any()


def test_the_key_of_a_run_decides_the_directions():
    tx = jaxlt.per_shard(jaxlt.random_perturbation(1.0, seed=0), "batch")

    def sharpness(params, x, y, **options):
        losses_fn = class_losses_fn_of(x, y)
        mine = jax.lax.pcast(params, "batch", to="varying")
        loss, gradient = jax.value_and_grad(lambda p: losses_fn(p).mean())(mine)
        options |= {"class_losses_fn": losses_fn, "value": loss}
        _, state = tx.update(gradient, tx.init(params), params, **options)
        return optax.tree.get(state, "sharpness")[0]

    def drawn(**options):
        step = functools.partial(sharpness, **options)
        return float(on_one_device(step, initial_params(), *batch(2)))

    assert drawn() == drawn()
    assert abs(drawn(key=jax.random.key(7)) - drawn()) > 1e-4
