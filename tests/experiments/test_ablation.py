"""CC-SAM's ablation: what its rows differ in, and that all of them train."""

import dataclasses
import json
import sys

import pytest

from experiments import ablation, command_line
from experiments.ablation import plan_ablation
from experiments.recipe import Recipe
from jaxlt import UsageError

BASE = Recipe(
    dataset="digits",
    model="mlp",
    imbalance_factor=20.0,
    augmentation="none",
    radius_scale=0.5,
    max_relative_radius=0.1,
    adversary_radius=2.0,
    epochs=12,
)


@pytest.fixture(scope="module")
def plan():
    return plan_ablation(BASE, constant_radius=0.25)


def differences(left, right):
    fields = {field.name for field in dataclasses.fields(left)}
    return {name for name in fields if getattr(left, name) != getattr(right, name)}


def test_first_stages_differ_in_the_perturbation_alone(plan):
    firsts = {
        name: dataclasses.replace(recipe, then=())
        for name, recipe in plan.recipes.items()
        if name.endswith("_crt")
    }
    both = firsts["both_crt"]
    assert firsts["sgd_crt"] == BASE
    assert differences(both, BASE) == {"method", "scope"}
    assert (both.direction, both.magnitude, both.radius_scale) == (
        "gradient",
        "characteristic",
        0.5,
    )
    assert differences(both, firsts["direction_crt"]) == {"magnitude", "radius_scale"}
    assert firsts["direction_crt"].radius_scale == 0.25
    assert differences(both, firsts["magnitude_crt"]) == {"direction"}
    assert {recipe.max_relative_radius for recipe in firsts.values()} == {0.1}


def test_second_stages_differ_in_the_adversary_alone(plan):
    for first in ("sgd", "direction", "magnitude", "both"):
        plain, adversarial = (plan.recipes[f"{first}_{end}"] for end in ("crt", "adversary"))
        assert differences(plain, adversarial) == {"then"}
        (second,), (moved,) = plain.then, adversarial.then
        assert differences(second, moved) == {"adversary"}
        assert (second.adversary, moved.adversary) == ("none", "paper")
        assert (second.trainable, second.reset_classifier) == ("classifier", True)
        assert (second.epochs, second.adversary_radius) == (2, 2.0)


def test_published_numbers_are_those_of_table_2(plan):
    published = {cell.row: cell.published.accuracy for cell in plan.cells if cell.published}
    assert published == {
        "cRT": 37.8,
        "cRT + direction": 38.9,
        "cRT + magnitude": 37.5,
        "cRT + both": 40.1,
        "cRT + both + stage 2": 40.6,
    }
    assert "Places-LT, ResNet-152" in plan.notes[0]
    assert not plan.comparable


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "sam"}, "method is the table's own to choose, it must be sgd, got sam"),
        ({"direction": "random"}, "direction is the table's own"),
    ],
)
def test_a_base_that_is_not_sgd_is_refused(changed, named):
    with pytest.raises(UsageError, match=named):
        plan_ablation(dataclasses.replace(BASE, **changed), 0.1)


def test_rows_train_and_are_shown(monkeypatch, capsys, tmp_path):
    rows = ("sgd", "magnitude")
    some = {name: label for name, label in ablation._FIRST_STAGES.items() if name in rows}
    monkeypatch.setattr(ablation, "_FIRST_STAGES", some)
    flags = ["--model", "mlp", "--epochs", "2", "--second-epochs", "1", "--seeds", "0"]
    flags += ["--pipeline", "device", "--workdir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["ablation", *flags])
    command_line.run(ablation.main)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = {cells[1].strip(): cells[2:6] for cells in (line.split("|") for line in lines[2:])}
    assert len(rows) == 5
    assert not any("n=" in cell for cells in rows.values() for cell in cells)
    results = {
        path.parents[1].name: json.loads(path.read_text())["accuracy"]
        for path in tmp_path.glob("*/seed0/result.json")
    }
    assert rows["cRT + magnitude"][-1].strip() == f"{100 * results['magnitude_crt']:.2f} (37.50)"
    first = json.loads(
        (tmp_path / "sgd_crt" / "seed0" / "metrics.jsonl").read_text().splitlines()[0]
    )
    assert first["stage"] == 0
    assert rows["SGD, no second stage"][-1].strip() == f"{100 * first['accuracy']:.2f}"
    assert len(results) == 4
