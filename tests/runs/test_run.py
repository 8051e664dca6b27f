"""One session with the files of a run: what it takes up, and what it leaves."""

import dataclasses

import jax.numpy as jnp
import pytest
from small_training import initial_state

from jaxlt import UsageError
from jaxlt.runs.run import Run
from jaxlt.training import Workdir

METRICS = {"balanced_accuracy": 0.5}


def restored(run, until=None, **changed):
    initial = dataclasses.replace(initial_state(), **changed)
    return run.restore(initial, lambda step: initial, until)


def session(path):
    return Run(Workdir(path, {}), 3, "run")


@pytest.fixture
def path(tmp_path):
    """Of a run that was stopped after its third evaluation, and has a pretrained network."""
    with session(tmp_path) as run:
        state = restored(run, frozen={"kernel": jnp.ones(3)})
        run.begin(0)
        for step in (10, 20, 30):
            run.record(step, METRICS)
            run.save(dataclasses.replace(state, step=jnp.asarray(step)), METRICS, float(step))
    return tmp_path


def test_what_comes_after_the_step_that_it_goes_on_from_is_dropped(path):
    with session(path) as run:
        state = restored(run, until=20, frozen={"kernel": jnp.ones(3)})
        assert int(state.step) == 20
        assert run.workdir.saved_steps() == [10, 20, 30]
        run.begin(20)
    assert run.workdir.saved_steps() == [10, 20]
    assert [record["step"] for record in run.workdir.read_metrics()] == [10, 20]


def test_seconds_are_those_of_all_sessions(path):
    with session(path) as run:
        restored(run, frozen={"kernel": jnp.ones(3)})
        run.begin(30)
        run.finish(5.0)
    assert run.workdir.read_result() == {"step": 30, **METRICS, "seconds": 35.0, "code": []}


def test_another_pretrained_network_is_refused(path):
    with session(path) as run, pytest.raises(UsageError, match="were trained on, with digest"):
        restored(run, frozen={"kernel": jnp.zeros(3)})


def test_skipped_steps_are_not_taken(tmp_path):
    with session(tmp_path) as run:
        run.skipped = [10, 13]
        assert [run.steps_taken(*span) for span in ((0, 10), (10, 20), (20, 25))] == [9, 9, 5]
