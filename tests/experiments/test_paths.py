import dataclasses

import numpy as np
import pytest

from experiments import quickstart
from experiments.build import build_model, build_regime
from experiments.experiment import Experiment, Replica
from experiments.paths import Paths, StepPath
from experiments.recipe import Recipe
from experiments.runs import run_all

COUNTS = (500, 100, 50, 19, 5)
RECIPE = Recipe(method="imb_sam", model="small_conv", batch_size=16, tail_threshold=20)


def paths(**fields):
    recipe = dataclasses.replace(RECIPE, **fields)
    model = build_model(recipe, len(COUNTS), (8, 8, 1))
    return Paths(recipe, COUNTS, model, build_regime(recipe, COUNTS, first_step=0))


def labels(*tails):
    """One row of labels a step, with so many images of the tail."""
    return np.array([[3, 4] * (tail // 2) + [3] * (tail % 2) + [0] * (16 - tail) for tail in tails])


@pytest.mark.parametrize(
    ("tails", "capacity"), [([0], 2), ([2], 2), ([3], 4), ([8], 8), ([9], None), ([1, 3, 0], 4)]
)
def test_the_smallest_room_that_holds_the_tail(tails, capacity):
    assert paths().choose(0, labels(*tails)) == StepPath(False, capacity)


@pytest.mark.parametrize(
    ("fields", "capacity"),
    [
        ({"model": "resnet20"}, None),
        ({"model": "resnet20", "hold_statistics": True}, 2),
        ({"model": "mlp"}, 2),
        ({"model": "small_vit"}, None),
        ({"method": "focal_sam"}, None),
        ({"method": "sgd"}, None),
        ({"batch_size": 2}, 1),
        ({"batch_size": 1}, None),
        ({"mixup": 1.0}, None),
        ({"loss": "gcl"}, None),
        ({"model": "resnet20", "batch_norm": "running"}, 2),
    ],
)
def test_room_is_for_methods_and_networks_that_can_use_it(fields, capacity):
    assert paths(**fields).choose(0, labels(1)) == StepPath(False, capacity)


def test_sse_sam_changes_at_its_switch():
    # 674 images make 43 batches an epoch; the second stage begins with the eighth of ten epochs.
    chosen = paths(method="sse_sam", epochs=10, switch_at=0.7)
    (switch,) = chosen.boundaries
    assert switch == -(-7 * sum(COUNTS) // 16)
    assert chosen.choose(switch - 1, labels(1)) == StepPath(False, None)
    assert chosen.choose(switch, labels(1)) == StepPath(True, 2)
    assert paths(method="sse_sam", switch_at=1).boundaries == ()


@pytest.mark.parametrize("method", ["imb_sam", "sse_sam"])
def test_the_form_of_a_step_changes_no_number(tmp_path, monkeypatch, method):
    recipe = dataclasses.replace(
        quickstart.BASE, method=method, epochs=3, eval_epochs=3, switch_at=0.4
    )
    chosen = []

    def recording(self, step, labels, choose=Paths.choose):
        chosen.append(choose(self, step, labels))
        return chosen[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Paths, "choose", recording)
        (fast,) = run_all(Experiment(recipe), [Replica(0, tmp_path / "fast")], label="fast")
    assert len({path.capacity for path in chosen} - {None}) > 0
    assert {path.second_stage for path in chosen} == {False, method == "sse_sam"}
    with monkeypatch.context() as patched:
        patched.setattr("experiments.paths._CAPACITIES", ())
        (whole,) = run_all(Experiment(recipe), [Replica(0, tmp_path / "whole")], label="whole")
    assert fast["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert fast["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-3)
