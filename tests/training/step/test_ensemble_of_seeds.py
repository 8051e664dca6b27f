"""Members: each as it would be alone, whatever stops them."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from small_training import (
    NUM_STEPS,
    Batches,
    batch,
    initial_state,
    job_of,
    program,
    step_of,
)

from jaxlt import UsageError
from jaxlt.data import Batch
from jaxlt.training import Program, Workdir, train
from jaxlt.training.loop.together import at_one_step, train_together
from jaxlt.training.step.ensemble import EnsemblePipeline, stack

SEEDS = (0, 1, 2)


def pipeline_of(seed, batch_at=batch):
    return Batches(lambda step: batch_at(step, seed))


@pytest.fixture(scope="module")
def together():
    pipeline = EnsemblePipeline([pipeline_of(seed) for seed in SEEDS])
    return Program(pipeline, lambda path: jax.vmap(step_of()), chunk_steps=4)


def job(together, batch_at=batch):
    pipeline = EnsemblePipeline([pipeline_of(seed, batch_at) for seed in SEEDS])
    return job_of(together, pipeline, stack([initial_state(seed) for seed in SEEDS]))


def workdirs(path):
    return [Workdir(path / f"seed{seed}", {"seed": seed}) for seed in SEEDS]


def run(path, together, batch_at=batch):
    names = [f"seed {seed}" for seed in SEEDS]
    train_together(job(together, batch_at), workdirs(path), labels=names)


def record_at(path, step):
    return json.loads((path / "checkpoints" / str(step) / "record" / "metadata").read_text())


def outcome(path):
    return [
        (
            record_at(workdir.path, NUM_STEPS)["digest"],
            (workdir.path / "metrics.jsonl").read_bytes(),
        )
        for workdir in workdirs(path)
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, together):
    path = tmp_path_factory.mktemp("uninterrupted")
    run(path, together)
    return path


def test_each_is_as_it_would_be_alone(tmp_path, uninterrupted):
    for seed in SEEDS:
        alone = Workdir(tmp_path / f"seed{seed}", {"seed": seed})
        train(job_of(program(4), pipeline_of(seed), initial_state(seed)), alone)
        workdir = workdirs(uninterrupted)[seed]
        for mine, others in zip(alone.read_metrics(), workdir.read_metrics(), strict=True):
            for name in ("step", "train_loss", "norm"):
                np.testing.assert_allclose(mine[name], others[name], rtol=1e-5)
        assert set(alone.read_result()) == set(workdir.read_result())
        files = {file.name for file in alone.path.iterdir()}
        assert files == {file.name for file in workdir.path.iterdir()}
        assert alone.saved_steps() == workdir.saved_steps()


def test_the_seeds_differ(uninterrupted):
    results = [workdir.read_result() for workdir in workdirs(uninterrupted)]
    assert len({result["norm"] for result in results}) == len(SEEDS)


def test_states_start_with_the_bits_of_their_own_seed(together):
    stacked = job(together).initial_state
    for index, seed in enumerate(SEEDS):
        alone = initial_state(seed)
        for mine, others in zip(
            jax.tree.leaves(alone.params), jax.tree.leaves(stacked.params), strict=True
        ):
            np.testing.assert_array_equal(mine, others[index])
        np.testing.assert_array_equal(
            jax.random.key_data(alone.key), jax.random.key_data(stacked.key[index])
        )


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", soak_but({14}, [3, 14, 10, 24]))
def test_stopped_members_resume_to_the_same_bits(tmp_path, together, uninterrupted, at):
    def killing(step, seed):
        if step == at and seed == 1:
            raise Killed
        return batch(step, seed)

    with pytest.raises(Killed):
        run(tmp_path, together, killing)
    run(tmp_path, together)
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize("at", [14, 22])
def test_a_kill_between_the_checkpoints_of_members(tmp_path, together, uninterrupted, at):
    def killing(step, seed):
        if step == at:
            raise Killed
        return batch(step, seed)

    with pytest.raises(Killed):
        run(tmp_path, together, killing)
    one = workdirs(tmp_path)[0]
    newest = one.saved_steps()[-1]
    shutil.rmtree(one.checkpoints / str(newest))
    assert at_one_step(workdirs(tmp_path)) == [0, 1, 2]
    run(tmp_path, together)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_damaged_checkpoint_takes_all_back(tmp_path, together, uninterrupted, caplog):
    def killing(step, seed):
        if step == 22:
            raise Killed
        return batch(step, seed)

    with pytest.raises(Killed):
        run(tmp_path, together, killing)
    shutil.rmtree(tmp_path / "seed1" / "checkpoints" / "20" / "state")
    run(tmp_path, together)
    assert "checkpoint of step 20" in caplog.text
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_runs_further_behind_go_first(tmp_path):
    saved = {"a": [], "b": [10], "c": [10, 20], "d": [10, 20, 30], "e": []}
    runs = []
    for name, steps in saved.items():
        runs.append(Workdir(tmp_path / name, {}))
        for step in steps:
            (runs[-1].checkpoints / str(step)).mkdir(parents=True)
    # The initial state is the one before the first checkpoint, so b can go back to it.
    assert at_one_step(runs) == [0, 1, 4]
    assert at_one_step(runs[1:4]) == [0, 1]
    assert at_one_step(runs[2:4]) == [0, 1]
    assert at_one_step(runs[3:4]) == [0]


def test_a_loss_that_is_not_finite_names_member_and_step(tmp_path, together):
    def bad(step, seed):
        images, labels = batch(step, seed)
        return Batch(images * np.float32("inf" if (step, seed) == (12, 1) else 1), labels)

    with pytest.raises(UsageError, match="loss of seed 1 must stay finite, got nan at step 13"):
        run(tmp_path, together, bad)
    assert (tmp_path / "seed2" / "checkpoints" / "10").is_dir()


def test_time_is_shared(uninterrupted):
    seconds = [workdir.read_result()["seconds"] for workdir in workdirs(uninterrupted)]
    assert seconds[0] > 0
    assert len(set(seconds)) == 1


def test_radii_are_traced():
    """One program for several radii: each member takes the step of its own."""
    radii = jnp.array([0.0, 0.05, 0.5])
    states = stack([initial_state()] * 3)
    images, labels = (jnp.stack([array] * 3) for array in batch(0))
    step = jax.vmap(lambda rho, *arguments: step_of(rho)(*arguments))
    after, _ = jax.jit(step)(radii, states, images, labels)
    for index, rho in enumerate((0.0, 0.05, 0.5)):
        alone, _ = jax.jit(step_of(rho))(initial_state(), *batch(0))
        np.testing.assert_allclose(
            after.params["Dense_0"]["kernel"][index], alone.params["Dense_0"]["kernel"], atol=1e-6
        )
    assert not np.allclose(*after.params["Dense_0"]["kernel"][::2], atol=1e-3)
