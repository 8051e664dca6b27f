import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt import UsageError
from jaxlt.runs.checkpoint import FORMAT
from jaxlt.training import Checkpoints, TrainState

METRICS = {"balanced_accuracy": 0.5}


def state_at(step: int) -> TrainState:
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params={"kernel": jax.random.normal(jax.random.key(step), (64, 64))},
        batch_stats={},
        singular_vectors={},
        opt_state=({"trace": jnp.full((64, 64), 0.1 * step)},),
        key=jax.random.fold_in(jax.random.key(7), step),
        loss_sum=jnp.asarray(1.5 * step),
    )


def words(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def template_at(step):
    return state_at(0)


def assert_same(left: TrainState, right: TrainState):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(words(a), words(b))


def saved(directory, accuracies, keep=2) -> Checkpoints:
    checkpoints = Checkpoints(directory, keep=keep)
    for index, accuracy in enumerate(accuracies, start=1):
        checkpoints.save(state_at(index), {"seconds": 2.0 * index}, {"balanced_accuracy": accuracy})
    checkpoints.wait()
    return checkpoints


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def restored(checkpoints, until=None):
    found = checkpoints.restore_latest(template_at, until=until)
    assert found is not None
    return found


def test_restores_bits_and_record(tmp_path):
    saved(tmp_path, [0.1, 0.2]).close()
    checkpoints = Checkpoints(tmp_path)
    state, record = restored(checkpoints)
    assert_same(state, state_at(2))
    assert record == {"seconds": 4.0}
    checkpoints.close()


def test_restores_until_a_step_and_drops_what_is_after_it(tmp_path):
    checkpoints = saved(tmp_path, [0.9, 0.1, 0.2])
    assert steps_in(tmp_path) == [1, 2, 3]
    state, _ = restored(checkpoints, until=2)
    assert_same(state, state_at(2))
    assert checkpoints.restore_latest(template_at, until=0) is None
    checkpoints.drop_after(1)
    assert int(restored(checkpoints)[0].step) == 1
    checkpoints.close()
    assert steps_in(tmp_path) == [1]


def test_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_latest(template_at) is None
    checkpoints.close()


def test_keeps_the_last_and_the_best(tmp_path):
    saved(tmp_path, [0.1, 0.9, 0.3, 0.4, 0.5]).close()
    assert steps_in(tmp_path) == [2, 4, 5]


def test_checkpoints_without_evaluation_are_never_the_best(tmp_path):
    checkpoints = saved(tmp_path, [0.9, 0.1, 0.1])
    checkpoints.save(state_at(4), {"seconds": 0.0}, None)
    checkpoints.save(state_at(5), {"seconds": 0.0}, None)
    checkpoints.close()
    assert steps_in(tmp_path) == [1, 4, 5]


def test_the_saved_state_may_be_donated(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = state_at(1)
    checkpoints.save(state, {}, None)
    overwritten = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf * 0 - 1, x), donate_argnums=0)
    overwritten((state.params, state.opt_state))
    checkpoints.wait()
    assert_same(restored(checkpoints)[0], state_at(1))
    checkpoints.close()


@pytest.mark.parametrize("field", ["params", "batch_stats"])
def test_what_is_not_finite_is_not_saved(tmp_path, field):
    checkpoints = saved(tmp_path, [0.1])
    state = dataclasses.replace(state_at(2), **{field: {"mean": jnp.array([1.0, jnp.inf])}})
    with pytest.raises(UsageError, match="after step 2 they are not"):
        checkpoints.save(state, {}, METRICS)
    checkpoints.close()
    assert steps_in(tmp_path) == [1]


def rewritten_record(directory, step, change):
    file = directory / str(step) / "record" / "metadata"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_a_checkpoint_of_a_later_version_is_refused_and_left_alone(tmp_path):
    saved(tmp_path, [0.1, 0.2]).close()
    rewritten_record(tmp_path, 2, lambda record: record.update(format=FORMAT + 1))
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UsageError, match="a later version of jaxlt wrote it") as refusal:
        checkpoints.restore_latest(template_at)
    assert "checkpoint of step 2" in str(refusal.value)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_states_that_an_earlier_version_laid_out_otherwise_are_said_to_be_so(tmp_path):
    saved(tmp_path, [0.1]).close()
    rewritten_record(tmp_path, 1, lambda record: record.pop("format"))
    checkpoints = Checkpoints(tmp_path)
    other = dataclasses.replace(state_at(0), opt_state=({"trace": jnp.zeros(()), "more": 1},))
    with pytest.raises(
        UsageError, match="must be readable, got 1 that are not: an earlier version wrote them"
    ):
        checkpoints.restore_latest(lambda step: other)
    assert int(restored(checkpoints)[0].step) == 1
    checkpoints.close()
    assert steps_in(tmp_path) == [1]


def newest_files(directory):
    newest = directory / str(steps_in(directory)[-1])
    return sorted(str(path.relative_to(newest)) for path in newest.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    saved(directory, [0.1, 0.2]).close()
    return directory


def damage(path, how):
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :])


@pytest.mark.parametrize(
    "how",
    [
        "one bit flipped",
        pytest.param("deleted", marks=pytest.mark.soak),
        pytest.param("truncated", marks=pytest.mark.soak),
    ],
)
def test_any_damage_of_the_newest_falls_back_or_is_harmless(two_checkpoints, tmp_path, how, caplog):
    """Whichever file is hurt: the newest comes back bit for bit, or the one before does."""
    fallbacks = 0
    for index, name in enumerate(newest_files(two_checkpoints)):
        directory = tmp_path / str(index)
        shutil.copytree(two_checkpoints, directory)
        if (directory / "2" / name).stat().st_size == 0:
            continue
        damage(directory / "2" / name, how)
        caplog.clear()
        checkpoints = Checkpoints(directory)
        state, record = restored(checkpoints)
        step = int(state.step)
        assert_same(state, state_at(step))
        assert record == {"seconds": 2.0 * step}, name
        if step == 1:
            fallbacks += 1
            assert "checkpoint of step 2" in caplog.text, name
            assert "damaged" in caplog.text, name
            assert (directory / "damaged-2").is_dir(), name
            checkpoints.save(state_at(2), {"seconds": 4.0}, METRICS)
            checkpoints.wait()
            assert int(restored(checkpoints)[0].step) == 2, name
        checkpoints.close()
    assert fallbacks >= 3


def test_no_checkpoint_readable_leaves_all_in_place(two_checkpoints, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(two_checkpoints, directory)
    for step in (1, 2):
        shutil.rmtree(directory / str(step) / "state")
    checkpoints = Checkpoints(directory)
    with pytest.raises(UsageError, match="must be readable, got 2 that are not"):
        checkpoints.restore_latest(template_at)
    checkpoints.close()
    assert steps_in(directory) == [1, 2]
