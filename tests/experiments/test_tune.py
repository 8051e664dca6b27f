"""Searching a recipe's fields: which trials there are, that test images stay unseen, the best."""

import json
import math
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import run_once, run_program

from experiments import cifar_lt, recipe_program, tune
from experiments.table.plan import place_of_run
from experiments.table.program import Options
from experiments.tuning import Search, best_of, parse_search, plan_trials, run_trials
from jaxlt import UsageError
from jaxlt.recipes import SGD, FocalSAM, read_recipe
from jaxlt.recipes.named import named, vary

BASE = named("focal_sam_digits")
BASES = {"sgd": vary(BASE, method=SGD()), "focal_sam": BASE}
RADII = Search("method.rho", ("0.01", "0.05", "0.2"), "focal_sam")
RATES = Search("optimizer.lr", ("0.01", "0.05", "0.1"), "sgd")
# Of 1201 digits at most 100 a class are trained on; the rest may be held out.
FLAGS = ("--data.profile.max-per-class", "100", "--data.validation-per-class", "10")
FLAGS += ("--network", "mlp", "--batch-size", "32", "--epochs", "2", "--evaluation.epochs", "1")


def test_each_combination_is_a_trial_with_its_values():
    trials = plan_trials(
        {"focal_sam": BASE}, [RADII._replace(method=None), Search("epochs", ("3", "4"))]
    )
    got = [(one.recipe.first.method, one.recipe.first.epochs) for one in trials]
    method = BASE.first.method
    assert got == [(method.replace(rho=rho), e) for rho in (0.01, 0.05, 0.2) for e in (3, 4)]
    assert [one.name for one in trials[:2]] == [
        "focal_sam,rho=0.01,epochs=3",
        "focal_sam,rho=0.01,epochs=4",
    ]
    assert len({one.name for one in trials}) == 6


def test_a_search_without_a_method_is_for_all_that_have_the_field():
    trials = plan_trials(BASES, [Search("optimizer.lr", ("0.1", "0.2"))])
    assert [one.method for one in trials] == ["sgd", "sgd", "focal_sam", "focal_sam"]


def test_every_method_has_as_many_trials():
    with pytest.raises(UsageError, match=r"got 3 of focal_sam and 1 of sgd: add values .*sgd:opt"):
        plan_trials(BASES, [Search("method.rho", ("0.01", "0.05", "0.2"))])
    assert len(plan_trials(BASES, [RADII, RATES])) == 6


@given(st.integers(1, 9))
def test_a_budget_draws_so_many_of_each_method_and_the_same_each_time(number):
    many = [RADII, RATES, Search("epochs", ("1", "2", "3"))]
    trials = plan_trials(BASES, many, number)
    assert [one.method for one in trials] == ["sgd"] * number + ["focal_sam"] * number
    assert trials == plan_trials(BASES, many, number)
    assert {one.name for one in trials} <= {one.name for one in plan_trials(BASES, many)}
    assert len({one.name for one in trials}) == 2 * number


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.rho", "must be FIELD=VALUE,VALUE"),
        ("=1", "must be FIELD=VALUE,VALUE"),
        ("method.rho=", "must be FIELD=VALUE,VALUE"),
        ("method.rho=1,,2", "must be FIELD=VALUE,VALUE"),
        (":method.rho=1", "must be FIELD=VALUE,VALUE"),
        ("method.rho=0.1,0.1", "must be different"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(word, said):
    with pytest.raises(UsageError, match=said):
        parse_search(word)


def test_a_search_reads_a_method_and_underscores():
    assert parse_search("sgd:weight_decay=1e-4") == Search("weight-decay", ("1e-4",), "sgd")


@pytest.mark.parametrize(
    ("search", "trials", "said"),
    [
        (Search("method.radius", ("1",)), None, "must be of a field that a recipe has"),
        (Search("method.rho", ("1",), "sam"), None, "must be of a field that a recipe has"),
        (Search("method.rho", ("much",)), None, "--method.rho must be"),
        (Search("method.rho", ("1", "2")), 3, "at most 2, the combinations"),
        (Search("method.rho", ("1", "2")), 0, "trials must be at least 1"),
        (Search("data.split-file", ("a" * 200,)), None, "so few and short"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(search, trials, said):
    with pytest.raises(UsageError, match=said):
        plan_trials({"focal_sam": BASE}, [search], trials)


def test_a_name_is_one_directory():
    (trial,) = plan_trials({"focal_sam": BASE}, [Search("data.split-file", ("../a b",))])
    assert "/" not in trial.name
    assert " " not in trial.name


def test_the_best_of_equal_trials_has_the_smaller_value(caplog):
    caplog.set_level("INFO")
    trials = plan_trials(BASES, [RADII._replace(values=("0.2", "0.05", "0.01")), RATES])
    scores = dict(
        zip([one.name for one in trials], [0.5, 0.6, -math.inf, 0.7, 0.7, 0.1], strict=True)
    )
    best = best_of(trials, scores)
    assert best["sgd"].values == {"optimizer.lr": "0.05"}
    assert best["focal_sam"].values == {"method.rho": "0.05"}
    assert "equally good; the smaller values are taken" in caplog.text
    with pytest.raises(UsageError, match="trial of sgd must have a finite loss"):
        best_of(trials, dict.fromkeys(scores, -math.inf))


def test_no_trial_is_judged_by_test_images(tmp_path):
    trials = plan_trials({"focal_sam": BASE}, [Search("method.rho", ("0.1",))])
    with pytest.raises(UsageError, match="must be held out of training, got test images"):
        run_trials(trials, tmp_path, Options((0,)))
    assert list(tmp_path.iterdir()) == []


class Tuned(NamedTuple):
    workdir: Path
    out: list[str]
    err: list[str]


def flags_of_a_search(workdir):
    words = ["--recipe", "focal_sam_digits", *FLAGS, "--compare", "sgd", "focal_sam"]
    words += ["--search", "focal_sam:method.rho=0.01,1e30", "sgd:optimizer.lr=0.05,1e30"]
    return [*words, "--workdir", workdir, "--measure-every", "0"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs of mine") / "tuned"
    status, out, err = run_once(tune, *flags_of_a_search(workdir))
    assert status == 0, err
    return Tuned(workdir, out, err)


def test_the_program_trains_all_trials_and_writes_the_best(tuned):
    rows = [line.split("|")[1:-1] for line in tuned.out if line.startswith("| ")][1:]
    found = {tuple(cell.strip() for cell in row[:2]): row[2].strip() for row in rows}
    run = tuned.workdir / "trials" / "focal_sam,rho=0.01" / "seed0"
    result = json.loads((run / "result.json").read_text())
    accuracy = f"{100 * np.mean(result['per_class']):.2f}"
    assert found["focal_sam", "method.rho 0.01"] == f"**{accuracy}**"
    assert found["sgd", "optimizer.lr 1e30"] == "diverged"
    assert any(
        line.startswith("sgd,lr=1e30 seed 0 diverged: loss nan at step") for line in tuned.err
    )
    best = read_recipe(tuned.workdir / "focal_sam.json")
    assert best.first.method == FocalSAM(rho=0.01, gamma=2.0, sharpness_weight=0.8)
    assert best.first.epochs == 2
    assert read_recipe(tuned.workdir / "sgd.json").first.optimizer.lr == 0.05


def test_what_the_runs_say_of_their_images_is_said_once(tuned):
    assert len(set(tuned.err)) == len(tuned.err)


def test_the_next_command_trains_the_best_as_its_trials_were(tuned, monkeypatch, capfd):
    calls = []
    monkeypatch.setattr(recipe_program, "_train", lambda *some: calls.append(some))
    for method, command in zip(("sgd", "focal_sam"), tuned.err[-3:], strict=False):
        python, _, program, *words = shlex.split(command)
        assert (python, program) == ("python3", "experiments.cifar_lt")
        status, _, err = run_program(monkeypatch, capfd, cifar_lt, *words)
        assert status == 0, err
        arguments, paths = calls.pop()
        assert arguments.options == read_recipe(tuned.workdir / f"{method}.json")
        assert arguments.execution.measure_every == 0
        # The program's own would be that of any search of this method.
        assert list(paths.values()) == [tuned.workdir / "best" / method]


def test_a_search_goes_on_where_it_stopped(tuned, monkeypatch, capfd):
    trials = tuned.workdir / "trials"
    result = place_of_run(trials, "sgd,lr=0.05", 0) / "result.json"
    others = [
        place_of_run(trials, "focal_sam,rho=0.01", 0) / "result.json",
        # A run that diverged is not trained once more, to diverge again.
        place_of_run(trials, "sgd,lr=1e30", 0) / "nonfinite_batch.json",
    ]
    before = result.read_bytes(), [file.stat().st_mtime_ns for file in others]
    result.unlink()
    status, *_ = run_program(monkeypatch, capfd, tune, *flags_of_a_search(tuned.workdir))
    assert status == 0
    seconds = json.loads(result.read_bytes()), json.loads(before[0])
    assert seconds[0]["per_class"] == seconds[1]["per_class"]
    assert [file.stat().st_mtime_ns for file in others] == before[1]


def test_without_a_search_the_program_says_how(monkeypatch, capfd):
    status, _, err = run_program(monkeypatch, capfd, tune, *FLAGS)
    assert status == 2
    said = "error: search must name a field and its values, got nothing; give it as in "
    assert err == [f"{said}--search method.rho=0.01,0.05,0.1"]
