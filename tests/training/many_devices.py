"""A program for any number of devices and processes: trains with every method, saves the states.

`python many_devices.py FILE CASES [COORDINATOR NUM_PROCESSES PROCESS]`, where CASES are names with
commas in between, or `all`. `test_many_devices.py` compares what such processes have saved.
"""

import dataclasses
import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from small_problems import COUNTS, METHODS, NUM_CLASSES

import jaxlt
from jaxlt.data import Batch, Chunk
from jaxlt.devices.cluster import join_processes, whole
from jaxlt.devices.processes import is_first
from jaxlt.devices.sharding import DATA, Layout
from jaxlt.models import ImageClassifier
from jaxlt.models.networks.convolution import BatchNorm
from jaxlt.training import Program, Regime, make_state_fn, make_train_step
from jaxlt.training.step.shards import over_shards

BATCH, SHAPE, NUM_STEPS, NUM_SHARDS = 32, (4, 4, 2), 3, 8


class BatchNormNet(nn.Module):
    """Computes in the type of its parameters and images."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(512)(images.reshape(len(images), -1))
        x = nn.relu(BatchNorm(use_running_average=not train)(x))
        x = nn.relu(BatchNorm(use_running_average=not train)(nn.Dense(64)(x)))
        return nn.Dense(NUM_CLASSES)(x)


class FactoredNet(ImageClassifier):
    """Tells features and classifier apart, so that methods pass over each group's images."""

    @nn.compact
    def features(self, images, *, train):
        del train
        return nn.relu(nn.Dense(64)(images.reshape(len(images), -1)))


def is_classifier(params):
    return {name: name == "classifier" for name in params}


TRANSFORMATIONS = {
    "sgd": optax.identity,
    **METHODS,
    "sse_sam second stage": functools.partial(METHODS["sse_sam"], switch_step=0),
    "cc_sam random": functools.partial(METHODS["cc_sam"], direction="random", seed=3),
    "gradient_norm_penalty": functools.partial(jaxlt.gradient_norm_penalty, 0.1, 0.5),
    "random_perturbation": functools.partial(jaxlt.random_perturbation, 0.1, seed=3),
}
FACTORED = {
    "imb_sam": METHODS["imb_sam"],
    "cc_sam": METHODS["cc_sam"],
    "cc_sam classifier": functools.partial(METHODS["cc_sam"], mask=is_classifier),
}


class Batches:
    """Each process makes its rows of each batch; chunks of one step."""

    resident = ()

    def __init__(self, layout, dtype):
        self._share, self._dtype = layout.share, dtype

    def chunks(self, start, stop, size=1):
        for step in range(start, stop, size):
            images, labels = batch(step, self._dtype)
            part, parts = self._share
            rows = slice(part * BATCH // parts, (part + 1) * BATCH // parts)
            payload = Batch(images[np.newaxis, rows], labels[np.newaxis, rows])
            yield Chunk(payload, labels[np.newaxis])

    def read(self, resident, payload):
        del resident
        return payload


def batch(step, dtype):
    rng = np.random.default_rng(step)
    shares = np.array(COUNTS) / sum(COUNTS)
    labels = rng.choice(NUM_CLASSES, BATCH, p=shares).astype(np.int32)
    return rng.standard_normal((BATCH, *SHAPE)).astype(dtype), labels


def loss(logits, labels, moment):
    del moment
    return jaxlt.losses.logit_adjusted(logits, labels, COUNTS)


def optimizer(method, axis_name=None, momentum=0.9):
    method = method if axis_name is None else jaxlt.per_shard(method, axis_name)
    return optax.chain(method, optax.add_decayed_weights(1e-3), optax.sgd(0.1, momentum=momentum))


@functools.cache
def plain_state(model, dtype):
    state = make_state_fn(model, optax.identity(), SHAPE)(0)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), (state.params, state.batch_stats))
    return dataclasses.replace(state, params=cast[0], batch_stats=cast[1])


def initial_state(model, method, dtype, **options):
    state = jax.tree.map(jnp.copy, plain_state(model, dtype))
    return dataclasses.replace(state, opt_state=optimizer(method, **options).init(state.params))


def of_network(model):
    return NUM_CLASSES, {"regime": Regime(row_losses=isinstance(model, ImageClassifier))}


def trained(model, make_method, dtype, *, shard_parameters=False):
    """Returns the state after some steps of a program on all devices."""
    method, (num_classes, options) = make_method(), of_network(model)
    layout = Layout(shard_parameters)
    step = make_train_step(model, optimizer(method), loss, num_classes, **options)
    pipeline = Batches(layout, dtype)
    program = Program(pipeline, lambda path: step, layout=layout)
    state = program.place(initial_state(model, method, dtype))
    for number, chunk in enumerate(pipeline.chunks(0, NUM_STEPS)):
        state, _ = program(state, number, chunk)
    if shard_parameters:
        kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.size >= 2**14]
        assert kernels, "something must be large enough to be divided"
        shares = {leaf.addressable_shards[0].data.size / leaf.size for leaf in kernels}
        assert shares == {1 / jax.device_count()}
    return state


def trained_by_shard(model, make_method, dtype):
    """Returns the state after one step of m-sharpness, without momentum."""
    num_classes, options = of_network(model)
    images, labels = batch(0, dtype)
    plain = {"momentum": None}
    start = initial_state(model, make_method(), dtype, **plain)
    if jax.device_count() == NUM_SHARDS:
        tx = optimizer(make_method(), DATA, **plain)
        step = make_train_step(model, tx, loss, num_classes, **options, axis_name=DATA)
        return jax.jit(over_shards(step, Layout().mesh))(start, images, labels)[0]
    # By brute force: the update is linear in the gradient, so the mean of the shards' parameters
    # is what their mean gradient gives.
    tx = optimizer(make_method(), **plain)
    step = jax.jit(make_train_step(model, tx, loss, num_classes, **options))
    parts = zip(np.split(images, NUM_SHARDS), np.split(labels, NUM_SHARDS), strict=True)
    states = [step(start, *part)[0] for part in parts]
    means = [
        jax.tree.map(lambda *x: sum(x) / len(x), *trees)
        for trees in zip(*((s.params, s.batch_stats) for s in states), strict=True)
    ]
    return dataclasses.replace(start, params=means[0], batch_stats=means[1])


def cases():
    for bits, methods in ((32, METHODS), (64, TRANSFORMATIONS)):
        dtype = np.dtype(f"float{bits}")
        for name, method in methods.items():
            yield f"{name} {bits}", functools.partial(trained, BatchNormNet(), method, dtype)
    sharded = functools.partial(trained, BatchNormNet(), METHODS["sam"], np.dtype("float64"))
    yield "sam sharded 64", functools.partial(sharded, shard_parameters=True)
    model = FactoredNet(num_classes=NUM_CLASSES)
    for name, method in FACTORED.items():
        yield f"{name} factored 32", functools.partial(trained, model, method, np.dtype("float32"))
    if jax.device_count() in (1, NUM_SHARDS) and jax.process_count() == 1:
        for name in ("sgd", *METHODS):
            method, dtype = TRANSFORMATIONS[name], np.dtype("float64")
            by_shard = functools.partial(trained_by_shard, BatchNormNet(), method, dtype)
            yield f"{name} by shard 64", by_shard


def flat(state):
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    return np.concatenate([np.ravel(whole(leaf)) for leaf in leaves])


def main():
    jax.config.update("jax_enable_x64", True)
    file, names, *cluster = sys.argv[1:]
    if cluster:
        join_processes(cluster[0], int(cluster[1]), int(cluster[2]))
    saved = {}
    for name, case in cases():
        if names == "all" or name in names.split(","):
            state, start = case(), plain_state(case.args[0], np.dtype(case.args[2]))
            saved[name], saved[f"{name} before"] = flat(state), flat(start)
    if is_first():
        np.savez(file, **saved)


if __name__ == "__main__":
    main()
