"""Steps without a finite loss or update: what is kept, what counts, and when a run stops."""

import dataclasses
import json
import os
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_training import (
    NUM_STEPS,
    Batches,
    Linear,
    batch,
    initial_state,
    job_of,
    loss,
    optimizer,
    outcome,
    step_of,
)

from jaxlt import UsageError
from jaxlt.data import Batch
from jaxlt.devices.backends import compiler_options
from jaxlt.training import Interrupted, Program, Workdir, make_state_fn, make_train_step, train
from jaxlt.training.loop import program
from jaxlt.training.loop.together import train_together
from jaxlt.training.step.ensemble import EnsemblePipeline, over_members, stack

SKIPPED = (13, 21)


def nan_at(steps, at=batch):
    """Batches in which the images of some steps, counted from 1, are not numbers."""

    def one(step, *rest):
        images, labels = at(step, *rest)
        return Batch(images * np.float32("nan" if step + 1 in steps else 1), labels)

    return one


def skipping_step(transformation=None):
    return make_train_step(Linear(), transformation or optimizer(), loss, 3, skip_nonfinite=True)


@pytest.fixture(scope="module", params=[1, 4], ids=["step by step", "in chunks"])
def skipping(request):
    return Program(Batches(), lambda path: skipping_step(), chunk_steps=request.param)


def job(program, batch_at, allowed):
    one = job_of(program, Batches(batch_at), initial_state())
    return dataclasses.replace(one, skip_nonfinite=allowed)


def test_the_run_goes_on_as_if_the_step_had_not_been(tmp_path, skipping, caplog):
    workdir = Workdir(tmp_path, {})
    state = train(job(skipping, nan_at(SKIPPED), 2), workdir)
    expected, losses, step = initial_state(), [], jax.jit(step_of())
    for number in range(NUM_STEPS):
        if number + 1 in SKIPPED:
            losses.append(np.nan)
            continue
        expected, loss = step(expected, *batch(number))
        losses.append(float(loss))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7),
        state.params,
        expected.params,
    )
    assert int(state.step) == NUM_STEPS
    assert workdir.read_result()["skipped_steps"] == list(SKIPPED)
    means = [np.nanmean(part) for part in (losses[:10], losses[10:20], losses[20:])]
    found = [record["train_loss"] for record in workdir.read_metrics()]
    np.testing.assert_allclose(found, means, rtol=1e-5)
    for index, step in enumerate(SKIPPED, start=1):
        assert f"step {step} is skipped" in caplog.text
        assert f"({index} of 2)" in caplog.text


def test_at_one_more_it_stops(tmp_path, skipping):
    with pytest.raises(UsageError, match="at step 21, after 1 skipped steps"):
        train(job(skipping, nan_at(SKIPPED), 1), Workdir(tmp_path, {}))
    found = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert (found["step"], found["skipped"]) == (21, 1)


@pytest.mark.parametrize("at", soak_but([13], [11, 13, 15]))
def test_a_resumed_run_has_skipped_the_same_steps_once(tmp_path, skipping, at):
    whole, parts = Workdir(tmp_path / "whole", {}), Workdir(tmp_path / "parts", {})
    train(job(skipping, nan_at(SKIPPED), 2), whole)

    def signaled(step):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return nan_at(SKIPPED)(step)

    with pytest.raises(Interrupted):
        train(job(skipping, signaled, 2), parts)
    train(job(skipping, nan_at(SKIPPED), 2), parts)
    assert outcome(parts.path) == outcome(whole.path)
    assert parts.read_result()["skipped_steps"] == list(SKIPPED)


@pytest.mark.parametrize("chunks", soak_but({4}, [1, 4]))
def test_a_run_that_may_skip_has_the_bits_of_one_that_may_not(tmp_path, monkeypatch, chunks):
    # Of two programs that differ, as a user has them compiled: the tests' kernels round otherwise.
    options: dict[str, Any] = {"xla_backend_optimization_level": 3}
    options["xla_llvm_disable_expensive_passes"] = False
    if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):
        options["xla_cpu_use_fusion_emitters"] = True
    monkeypatch.setattr(program, "compiler_options", lambda: compiler_options() | options)
    skipping = Program(Batches(), lambda path: skipping_step(), chunk_steps=chunks)
    train(job(skipping, batch, 2), Workdir(tmp_path / "may", {}))
    # Not that which other tests share, compiled as they are.
    plain = Program(Batches(), lambda path: step_of(), chunk_steps=chunks)
    train(job_of(plain, Batches(), initial_state()), Workdir(tmp_path / "not", {}))
    assert outcome(tmp_path / "may") == outcome(tmp_path / "not")


def test_each_member_skips_its_own_steps(tmp_path):
    seeds = (0, 1)
    of_seed = [nan_at(SKIPPED if seed else ()) for seed in seeds]
    pipeline = EnsemblePipeline([Batches(of_seed[seed]) for seed in seeds])
    together = Program(pipeline, lambda path: over_members(skipping_step()), chunk_steps=4)
    states = stack([initial_state(seed) for seed in seeds])
    one = dataclasses.replace(job_of(together, pipeline, states), skip_nonfinite=2)
    workdirs = [Workdir(tmp_path / str(seed), {}) for seed in seeds]
    train_together(one, workdirs, labels=["seed 0", "seed 1"])
    assert [one.read_result()["skipped_steps"] for one in workdirs] == [[], list(SKIPPED)]
    losses = [[record["train_loss"] for record in one.read_metrics()] for one in workdirs]
    assert np.isfinite(losses).all()


def test_an_update_that_is_not_finite_is_left_out_and_schedules_go_on():
    """A rate that is infinite at the second step alone; the third has the third's rate."""
    rates = jnp.array([0.1, jnp.inf, 0.01])
    transformation = optax.sgd(lambda count: rates[count], momentum=0.9)
    state = make_state_fn(Linear(), transformation, (2, 2, 1))(0)
    step = jax.jit(skipping_step(transformation))
    first, _ = step(state, *batch(0))
    second, loss = step(first, *batch(1))
    assert np.isnan(loss)
    assert int(second.step) == 2
    for name in ("params", "batch_stats", "singular_vectors", "loss_sum"):
        jax.tree.map(np.testing.assert_array_equal, getattr(second, name), getattr(first, name))
    jax.tree.map(np.testing.assert_array_equal, second.opt_state[0], first.opt_state[0])
    third, loss = step(second, *batch(2))
    assert np.isfinite(loss)
    momentum = third.opt_state[0].trace
    expected = jax.tree.map(lambda leaf, trace: leaf - 0.01 * trace, second.params, momentum)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6),
        third.params,
        expected,
    )
