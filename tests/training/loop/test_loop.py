import json
import logging
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from small_training import (
    EVAL_STEPS,
    NUM_STEPS,
    Batches,
    Killed,
    batch,
    initial_state,
    job_of,
    killed_at,
    make_job,
    outcome,
    step_of,
)

from jaxlt import UsageError
from jaxlt.data import Batch
from jaxlt.training import Checkpoints, Interrupted, Program, Workdir, train


@pytest.fixture(params=[1, 4], ids=["step by step", "in chunks"])
def chunk_steps(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted_runs(tmp_path_factory):
    outcomes = {}
    for steps in (1, 4):
        path = tmp_path_factory.mktemp("uninterrupted")
        train(make_job(chunk_steps=steps), Workdir(path, {}))
        outcomes[steps] = outcome(path)
    return outcomes


@pytest.fixture
def uninterrupted(uninterrupted_runs, chunk_steps):
    return uninterrupted_runs[chunk_steps]


def test_evaluates_and_reports(tmp_path, caplog, chunk_steps):
    caplog.set_level(logging.INFO)
    workdir = Workdir(tmp_path, {})
    state = train(make_job(chunk_steps=chunk_steps), workdir, label="trial")
    assert int(state.step) == NUM_STEPS
    assert [record["step"] for record in workdir.read_metrics()] == [10, 20, 25]
    result = workdir.read_result()
    assert result["step"] == NUM_STEPS
    assert result["seconds"] > 0
    assert result["few"] is None
    assert "trial: step 10/25, train_loss" in caplog.text
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_result_is_written_once_the_last_checkpoint_is_whole(tmp_path, monkeypatch):
    told = []

    def noting(name, function):
        return lambda *arguments: [told.append(name), function(*arguments)][1]

    for owner, name in ((Checkpoints, "save"), (Checkpoints, "wait"), (Workdir, "write_result")):
        monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))
    train(make_job(), Workdir(tmp_path, {}))
    assert told[-3:] == ["save", "wait", "write_result"]


def test_train_loss_is_the_mean_since_the_last_evaluation(tmp_path, monkeypatch, chunk_steps):
    losses = []
    call = Program.__call__

    def recording(*arguments):
        state, chunk_losses = call(*arguments)
        losses.extend(chunk_losses.tolist())
        return state, chunk_losses

    monkeypatch.setattr(Program, "__call__", recording)
    workdir = Workdir(tmp_path, {})
    train(make_job(chunk_steps=chunk_steps), workdir)
    assert len(losses) == NUM_STEPS
    means = [record["train_loss"] for record in workdir.read_metrics()]
    expected = [np.mean(losses[:10]), np.mean(losses[10:20]), np.mean(losses[20:])]
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def signaled_at(at, signum):
    def one(step):
        if step == at:
            os.kill(os.getpid(), signum)
        return batch(step)

    return one


@pytest.mark.parametrize("at", soak_but([3, 10], [0, 3, 10, 14, 24]))
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, uninterrupted, chunk_steps, at):
    with pytest.raises(Killed):
        train(make_job(Batches(killed_at(at)), chunk_steps), Workdir(tmp_path, {}))
    train(make_job(chunk_steps=chunk_steps), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == uninterrupted


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_between_evaluations(tmp_path, uninterrupted, chunk_steps, signum):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 14") as caught:
        train(make_job(Batches(signaled_at(13, signum)), chunk_steps), Workdir(tmp_path, {}))
    assert caught.value.exit_status == 128 + signum
    seen = []

    def rest(step):
        seen.append(step)
        return batch(step)

    train(make_job(Batches(rest), chunk_steps), Workdir(tmp_path, {}))
    assert seen == list(range(14, NUM_STEPS))
    assert outcome(tmp_path) == uninterrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_resumed_run_meets_the_chunks_of_one_never_stopped(tmp_path, monkeypatch):
    chunks = []
    call = Program.__call__

    def recording(self, state, step, chunk):
        chunks.append((step, len(chunk.labels)))
        return call(self, state, step, chunk)

    monkeypatch.setattr(Program, "__call__", recording)
    train(make_job(chunk_steps=4), Workdir(tmp_path / "whole", {}))
    whole, chunks[:] = list(chunks), []
    signaled = Batches(signaled_at(13, signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(make_job(signaled, 4), Workdir(tmp_path / "parts", {}))
    train(make_job(chunk_steps=4), Workdir(tmp_path / "parts", {}))
    assert chunks == whole == [(0, 4), (4, 4), (8, 2), (10, 4), (14, 4), (18, 2), (20, 3), (23, 2)]


@pytest.mark.parametrize("at", [9, 24])
def test_a_signal_before_an_evaluation_is_not_lost(tmp_path, uninterrupted, chunk_steps, at):
    one = Batches(signaled_at(at, signal.SIGTERM))
    with pytest.raises(Interrupted, match=f"after step {at + 1}"):
        train(make_job(one, chunk_steps), Workdir(tmp_path, {}))
    assert (tmp_path / "checkpoints" / str(at + 1)).is_dir()
    train(make_job(chunk_steps=chunk_steps), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(make_job(), Workdir(tmp_path, {}))

    def none(step):
        raise AssertionError("no step is left")

    state = train(make_job(Batches(none)), Workdir(tmp_path, {}))
    assert int(state.step) == NUM_STEPS


def test_a_result_lost_before_it_was_written_is_written_again(tmp_path):
    workdir = Workdir(tmp_path, {})
    train(make_job(), workdir)
    before = workdir.read_result()
    (tmp_path / "result.json").unlink()
    train(make_job(), workdir)
    assert workdir.read_result() == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, uninterrupted, chunk_steps):
    def one(step):
        images, labels = batch(step)
        return Batch(images * np.float32("nan" if step == 12 else 1), labels)

    with pytest.raises(UsageError, match="got nan at step 13: lower"):
        train(make_job(Batches(one), chunk_steps), Workdir(tmp_path, {}))
    assert (tmp_path / "checkpoints" / str(EVAL_STEPS)).is_dir()
    found = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert (found["step"], found["loss"]) == (13, "nan")
    assert found["images"] == list(range(8 * 12, 8 * 13))
    assert found["labels"] == batch(12).labels.tolist()
    train(make_job(chunk_steps=chunk_steps), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == uninterrupted


def test_compiling_does_not_count_as_training(tmp_path, monkeypatch, clock):
    program = Program(Batches(), lambda path: step_of())
    compiled = Program._compile

    def slow(*arguments, **options):
        clock.now += 100
        return compiled(*arguments, **options)

    monkeypatch.setattr(Program, "_compile", slow)
    workdir = Workdir(tmp_path, {})
    train(job_of(program, Batches(), initial_state()), workdir)
    assert program.compile_seconds > 100
    assert workdir.read_result()["seconds"] < 100


def test_the_initial_state_of_a_job_outlives_the_run(tmp_path):
    one = make_job()
    train(one, Workdir(tmp_path, {}))
    assert np.isfinite(jax.tree.reduce(lambda a, x: a + jnp.sum(x), one.initial_state.params, 0.0))
