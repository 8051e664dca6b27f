"""A small problem that trains in milliseconds, for the tests of program, loop and members."""

import functools
import json

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxlt
from jaxlt.data import Batch, Chunk
from jaxlt.training import (
    Job,
    JobStage,
    Measurements,
    Program,
    Steps,
    make_measure_fn,
    make_state_fn,
    make_train_step,
)

NUM_STEPS, EVAL_STEPS = 25, 10


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        del train
        return nn.Dense(3)(images.reshape(len(images), -1))


def batch(step, seed=0):
    rng = np.random.default_rng((seed, step))
    images = rng.standard_normal((8, 2, 2, 1), dtype=np.float32)
    return Batch(images, rng.integers(0, 3, 8).astype(np.int32))


class Killed(BaseException):
    """What a batch raises in place of a kill from outside."""


def killed_at(at):
    def one(step):
        if step == at:
            raise Killed
        return batch(step)

    return one


class Batches:
    """A pipeline of whatever batches a function makes."""

    resident = ()

    def __init__(self, batch_at=batch):
        self._batch_at = batch_at

    def chunks(self, start_step, stop_step, size):
        for first in range(start_step, stop_step, size):
            steps = range(first, min(first + size, stop_step))
            images, labels = map(np.stack, zip(*map(self._batch_at, steps), strict=True))
            yield Chunk(Batch(images, labels), labels)

    def labels(self, start_step, stop_step):
        return np.stack([self._batch_at(step).labels for step in range(start_step, stop_step)])

    def image_numbers(self, start_step, stop_step):
        return 8 * np.arange(start_step, stop_step)[:, np.newaxis] + np.arange(8)

    def read(self, resident, payload):
        assert resident == ()
        return payload.images, payload.labels


def optimizer(rho=0.05):
    return optax.chain(jaxlt.sam(rho), optax.sgd(0.1, momentum=0.9))


def initial_state(seed=0):
    return make_state_fn(Linear(), optimizer(), (2, 2, 1))(seed)


def loss(logits, labels, moment):
    del moment
    return jaxlt.losses.cross_entropy(logits, labels)


def step_of(rho=0.05):
    return make_train_step(Linear(), optimizer(rho), loss, 3)


GROUPS = {"all": np.array([True] * 3), "first": np.arange(3) == 0, "last": np.arange(3) == 2}
MEASUREMENTS = Measurements(4, GROUPS, tail=np.arange(3) > 0)
measure_fn = make_measure_fn(Linear(), loss, np.stack(list(GROUPS.values())))


def evaluate(state):
    norm = float(jax.numpy.linalg.norm(state.params["Dense_0"]["kernel"]))
    return {"balanced_accuracy": 0.01 * float(state.step), "few": float("nan"), "norm": norm}


@functools.cache
def program(chunk_steps):
    """Compiled once for all tests."""
    return Program(
        Batches(), lambda path: step_of(), measure_fn=measure_fn, chunk_steps=chunk_steps
    )


def job_of(program, pipeline, state, measurements=None):
    """A run of one stage."""
    steps = Steps(program, pipeline, NUM_STEPS, EVAL_STEPS, measurements)
    return Job(state, (JobStage(steps, evaluate, initial_state),))


def make_job(pipeline=None, chunk_steps=1, measurements=None):
    return job_of(program(chunk_steps), pipeline or Batches(), initial_state(), measurements)


def outcome(path):
    """The digest of a finished run's last state, and its metrics."""
    record = json.loads((path / "checkpoints" / str(NUM_STEPS) / "record" / "metadata").read_text())
    return record["digest"], (path / "metrics.jsonl").read_bytes()


def measurements_of(workdir):
    """Returns the measurements recorded so far."""
    return [record for record in workdir.read_lines() if "measurement" in record]
