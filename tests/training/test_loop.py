import json
import logging
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlt
from jaxlt import UsageError
from jaxlt.data import Batch
from jaxlt.training import Interrupted, Job, Workdir, make_state_fn, make_train_step, train

NUM_STEPS, EVAL_STEPS = 25, 10


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        del train
        return nn.Dense(3)(images.reshape(len(images), -1))


def batch(step):
    rng = np.random.default_rng(step)
    images = rng.standard_normal((8, 2, 2, 1), dtype=np.float32)
    return Batch(images, rng.integers(0, 3, 8).astype(np.int32))


def job(batches=None, lr=0.1):
    transformation = optax.chain(jaxlt.sam(0.05), optax.sgd(lr, momentum=0.9))
    return Job(
        initial_state=make_state_fn(Linear(), transformation, (2, 2, 1))(0),
        train_step=make_train_step(
            Linear(), transformation, lambda x, y, step: jaxlt.losses.cross_entropy(x, y), 3
        ),
        batches=batches or (lambda start, stop: (batch(step) for step in range(start, stop))),
        evaluate=lambda state: {"balanced_accuracy": 0.01 * float(state.step), "few": float("nan")},
        num_steps=NUM_STEPS,
        eval_steps=EVAL_STEPS,
    )


def outcome(path):
    record = json.loads((path / "checkpoints" / str(NUM_STEPS) / "record" / "metadata").read_text())
    return record["digest"], (path / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    train(job(), Workdir(path, {}))
    return outcome(path)


def test_evaluates_and_reports(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    workdir = Workdir(tmp_path, {})
    state = train(job(), workdir, label="trial")
    assert int(state.step) == NUM_STEPS
    assert [record["step"] for record in workdir.read_metrics()] == [10, 20, 25]
    result = workdir.read_result()
    assert result["step"] == NUM_STEPS
    assert result["seconds"] > 0
    assert result["few"] is None
    assert "trial: step 10/25, train_loss" in caplog.text
    assert list((tmp_path / "tensorboard").iterdir())


def test_train_loss_is_the_mean_since_the_last_evaluation(tmp_path):
    losses = []
    one = job()

    def recording(state, images, labels):
        state, loss = one.train_step(state, images, labels)
        losses.append(float(loss))
        return state, loss

    workdir = Workdir(tmp_path, {})
    train(Job(**{**vars(one), "train_step": recording}), workdir)
    means = [record["train_loss"] for record in workdir.read_metrics()]
    expected = [np.mean(losses[:10]), np.mean(losses[10:20]), np.mean(losses[20:])]
    np.testing.assert_allclose(means, expected, rtol=1e-6)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [0, 3, 10, 14, 24])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, uninterrupted, at):
    def batches(start, stop):
        for step in range(start, stop):
            if step == at:
                raise Killed
            yield batch(step)

    with pytest.raises(Killed):
        train(job(batches), Workdir(tmp_path, {}))
    train(job(), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == uninterrupted


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_between_evaluations(tmp_path, uninterrupted, signum):
    def batches(start, stop):
        for step in range(start, stop):
            if step == 13:
                os.kill(os.getpid(), signum)
            yield batch(step)

    with pytest.raises(Interrupted, match="after step 14") as caught:
        train(job(batches), Workdir(tmp_path, {}))
    assert caught.value.exit_status == 128 + signum
    seen = []

    def rest(start, stop):
        for step in range(start, stop):
            seen.append(step)
            yield batch(step)

    train(job(rest), Workdir(tmp_path, {}))
    assert seen[0] == 14
    assert outcome(tmp_path) == uninterrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("at", [9, 24])
def test_a_signal_before_an_evaluation_is_not_lost(tmp_path, uninterrupted, at):
    def batches(start, stop):
        for step in range(start, stop):
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch(step)

    with pytest.raises(Interrupted, match=f"after step {at + 1}"):
        train(job(batches), Workdir(tmp_path, {}))
    assert (tmp_path / "checkpoints" / str(at + 1)).is_dir()
    train(job(), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(job(), Workdir(tmp_path, {}))

    def none(start, stop):
        raise AssertionError("no step is left")

    state = train(job(none), Workdir(tmp_path, {}))
    assert int(state.step) == NUM_STEPS


def test_a_result_lost_before_it_was_written_is_written_again(tmp_path):
    workdir = Workdir(tmp_path, {})
    train(job(), workdir)
    before = workdir.read_result()
    (tmp_path / "result.json").unlink()
    train(job(), workdir)
    assert workdir.read_result() == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def batches(start, stop):
        for step in range(start, stop):
            images, labels = batch(step)
            yield Batch(images * np.float32("nan"), labels) if step == 12 else batch(step)

    with pytest.raises(UsageError, match="it is nan at step 13"):
        train(job(batches), Workdir(tmp_path, {}))
    assert (tmp_path / "checkpoints" / "10").is_dir()


def test_the_initial_state_of_a_job_outlives_the_run(tmp_path):
    one = job()
    train(one, Workdir(tmp_path, {}))
    assert np.isfinite(jax.tree.reduce(lambda a, x: a + jnp.sum(x), one.initial_state.params, 0.0))
