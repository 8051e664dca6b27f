"""CC-SAM's ablation: what its rows differ in, and that all of them train."""

import json
import sys

import pytest

from experiments import ablation, command_line
from experiments.ablation import plan_ablation
from jaxlt import UsageError
from jaxlt.recipes import CCSAM, SAM, SGD, Data, Digits, Exponential, PaperAdversary, Recipe, Small
from jaxlt.recipes.named import followed_by, vary
from jaxlt.recipes.recorded import write_recipe
from jaxlt.runs.differences import differences

BASE = vary(
    Recipe(
        data=Data(source=Digits(), profile=Exponential(imbalance_factor=20.0)),
        network=Small(architecture="mlp"),
    ),
    shift="none",
    method=CCSAM(radius_scale=0.5, max_relative_radius=0.1),
    epochs=12,
)


@pytest.fixture(scope="module")
def plan():
    return plan_ablation(BASE, constant_radius=0.25, adversary=PaperAdversary(radius=2.0))


def differing(left, right):
    written = [json.loads(write_recipe(recipe)) for recipe in (left, right)]
    return set(differences(written))


def test_first_stages_differ_in_the_perturbation_alone(plan):
    firsts = {
        name: followed_by(recipe) for name, recipe in plan.recipes.items() if name.endswith("_crt")
    }
    both = firsts["both_crt"]
    assert both == BASE
    assert differing(firsts["sgd_crt"], BASE) == {"method"}
    assert firsts["sgd_crt"].first.method == SGD()
    method = both.first.method
    assert isinstance(method, CCSAM)
    assert (method.direction, method.magnitude, method.radius_scale, method.scope) == (
        "gradient",
        "characteristic",
        0.5,
        "classifier",
    )
    assert differing(both, firsts["direction_crt"]) == {"method.magnitude", "method.radius_scale"}
    of_direction = firsts["direction_crt"].first.method
    assert isinstance(of_direction, CCSAM)
    assert of_direction.radius_scale == 0.25
    assert differing(both, firsts["magnitude_crt"]) == {"method.direction"}
    perturbed = [firsts[f"{name}_crt"].first.method for name in ("direction", "magnitude", "both")]
    radii = [method.max_relative_radius for method in perturbed if isinstance(method, CCSAM)]
    assert radii == [0.1] * 3


def test_second_stages_differ_in_the_adversary_alone(plan):
    for first in ("sgd", "direction", "magnitude", "both"):
        plain, adversarial = (plan.recipes[f"{first}_{end}"] for end in ("crt", "adversary"))
        assert differing(plain, adversarial) == {"then.0.adversary"}
        (_, second), (_, moved) = plain.stages, adversarial.stages
        assert (second.adversary, moved.adversary) == (None, PaperAdversary(radius=2.0))
        assert (second.trainable, second.reset_classifier) == ("classifier", True)
        assert (second.method, second.epochs) == (SGD(), 2)
        for name in ("lr", "weight_decay"):
            assert getattr(second.optimizer, name) == getattr(BASE.first.optimizer, name)


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
        ({"method": SAM()}, "method must be cc_sam, of which the table's rows .*, got sam"),
        (
            {"method": CCSAM(direction="random")},
            "method.direction must be gradient, the table chooses it, got random",
        ),
        ({"stages": (BASE.first, BASE.first)}, "then must be .*, got 1 stages"),
    ],
)
def test_a_base_that_is_not_one_stage_of_cc_sam_is_refused(changed, named):
    with pytest.raises(UsageError, match=named):
        plan_ablation(vary(BASE, **changed), 0.1)


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ("sam_digits", "recipe must be one with method sgd, got sam_digits of sam"),
        ("crt_digits", "recipe must be one of a single stage, got crt_digits of 2"),
        ("sgd_digit", "recipe must be a named one, such as sgd_digits"),
    ],
)
def test_a_recipe_that_is_not_one_stage_of_sgd_is_refused(monkeypatch, recipe, named):
    monkeypatch.setattr(sys, "argv", ["ablation", "--recipe", recipe])
    with pytest.raises(UsageError, match=named):
        ablation.main()


@pytest.mark.soak
def test_rows_train_and_are_shown(monkeypatch, capsys, tmp_path):
    rows = ("sgd", "magnitude")
    some = tuple(row for row in ablation._ROWS if row[1] in rows)
    monkeypatch.setattr(ablation, "_ROWS", some)
    flags = ["--network", "mlp", "--epochs", "2", "--second-epochs", "1", "--seeds", "0"]
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
