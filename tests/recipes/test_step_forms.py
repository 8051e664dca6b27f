import numpy as np
import pytest

from jaxlt.recipes import (
    GCL,
    SGD,
    SSESAM,
    Augmentation,
    Data,
    Digits,
    Evaluation,
    Exponential,
    FocalSAM,
    ImbSAM,
    Optimizer,
    Recipe,
    Small,
    Stage,
)
from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members
from jaxlt.recipes.built_stage import StepForm, StepForms, build_regime

COUNTS = (500, 100, 50, 19, 5)
STAGE = Stage(method=ImbSAM(tail_threshold=20), batch_size=16)


def forms(architecture="small_conv", **fields):
    stage = STAGE.replace(**fields)
    model = Small(architecture=architecture).build(len(COUNTS), (8, 8, 1))
    return StepForms(stage, COUNTS, model, build_regime(stage, COUNTS))


def labels(*tails):
    """One row of labels a step, with so many images of the tail."""
    return np.array([[3, 4] * (tail // 2) + [3] * (tail % 2) + [0] * (16 - tail) for tail in tails])


@pytest.mark.parametrize(
    ("tails", "capacity"), [([0], 2), ([2], 2), ([3], 4), ([8], 8), ([9], None), ([1, 3, 0], 4)]
)
def test_the_smallest_room_that_holds_the_tail(tails, capacity):
    assert forms().choose(0, labels(*tails)) == StepForm(0, capacity)


@pytest.mark.parametrize(
    ("fields", "capacity"),
    [
        ({"architecture": "resnet8"}, None),
        ({"architecture": "resnet8", "batch_norm": "held"}, 2),
        ({"architecture": "mlp"}, 2),
        ({"architecture": "small_vit"}, None),
        ({"method": FocalSAM()}, None),
        ({"method": SGD()}, None),
        ({"batch_size": 2}, 1),
        ({"batch_size": 1}, None),
        ({"augmentation": Augmentation(mixup=1.0)}, None),
        ({"loss": GCL()}, None),
        ({"architecture": "resnet8", "batch_norm": "running"}, 2),
    ],
)
def test_room_is_for_methods_and_networks_that_can_use_it(fields, capacity):
    assert forms(**fields).choose(0, labels(1)) == StepForm(0, capacity)


def test_sse_sam_changes_at_its_switch():
    # 674 images make 43 batches an epoch; the second stage begins with the eighth of ten epochs.
    chosen = forms(method=SSESAM(switch_at=0.7), epochs=10)
    (switch,) = chosen.boundaries
    assert switch == -(-7 * sum(COUNTS) // 16)
    assert chosen.choose(switch - 1, labels(1)) == StepForm(0, None)
    assert chosen.choose(switch, labels(1)) == StepForm(1, 2)
    assert forms(method=SSESAM(switch_at=1)).boundaries == ()


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        pytest.param(ImbSAM(tail_threshold=30), {0}, marks=pytest.mark.soak),
        (SSESAM(tail_threshold=30, switch_at=0.4), {0, 1}),
    ],
)
def test_the_form_of_a_step_changes_no_number(tmp_path, monkeypatch, method, phases):
    recipe = Recipe(
        data=Data(source=Digits(), profile=Exponential(imbalance_factor=20.0)),
        network=Small(architecture="small_conv"),
        stages=(
            Stage(
                epochs=3,
                batch_size=64,
                method=method,
                optimizer=Optimizer(lr=0.05, weight_decay=5e-4),
                augmentation=Augmentation(shift="none"),
            ),
        ),
        evaluation=Evaluation(epochs=3, many_above=60, few_below=15),
    )
    chosen = []

    def recording(self, step, labels, choose=StepForms.choose):
        chosen.append(choose(self, step, labels))
        return chosen[-1]

    with monkeypatch.context() as patched:
        patched.setattr(StepForms, "choose", recording)
        (fast,) = train_members(BuiltRecipe(recipe), [Member(0, tmp_path / "fast")], label="fast")
    assert len({form.capacity for form in chosen} - {None}) > 0
    assert {form.phase for form in chosen} == phases
    with monkeypatch.context() as patched:
        patched.setattr("jaxlt.recipes.built_stage._CAPACITIES", ())
        one = [Member(0, tmp_path / "whole")]
        (whole,) = train_members(BuiltRecipe(recipe), one, label="whole")
    assert fast["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert fast["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-3)
