"""Several seeds and radii: together or apart, in groups that fit, on either pipeline."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import cifar_lt, command_line, number_ranges
from jaxlt.recipes import (
    SAM,
    Data,
    Digits,
    Evaluation,
    Execution,
    Exponential,
    Optimizer,
    Recipe,
    Small,
    Stage,
    ensemble,
)
from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members
from jaxlt.recipes.recipe import UNMEASURED
from jaxlt.training.loop.together import bytes_needed, device_memory

ROOT = Path(__file__).parents[2]
TOGETHER, APART = (Execution("device", mode, measure_every=0) for mode in ("together", "apart"))
DIGITS = Data(source=Digits(), profile=Exponential(imbalance_factor=10))
RECIPE = Recipe(
    data=DIGITS,
    network=Small(architecture="mlp"),
    stages=(Stage(method=SAM(), optimizer=Optimizer(lr=0.05), epochs=2),),
    evaluation=Evaluation(epochs=1),
)


def of_one_epoch(architecture, execution=UNMEASURED):
    network = Small(architecture=architecture)
    return BuiltRecipe(Recipe(data=DIGITS, network=network, stages=(Stage(epochs=1),)), execution)


def members(path, seeds=(0, 1, 2)):
    return [Member(seed, path / f"seed{seed}") for seed in seeds]


def evaluations(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def assert_close(left, right):
    for a, b in zip(evaluations(left), evaluations(right), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(a["test_loss"], b["test_loss"], rtol=1e-5)


@pytest.fixture(scope="module")
def experiment():
    return BuiltRecipe(RECIPE, TOGETHER)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    path = tmp_path_factory.mktemp("apart")
    train_members(BuiltRecipe(RECIPE, APART), members(path), label="digits")
    return path


@pytest.fixture
def trained_together(monkeypatch):
    """Sizes of the groups that are trained together."""
    sizes = []
    train_together = ensemble.train_together

    def counting(job, workdirs, **options):
        sizes.append(len(workdirs))
        train_together(job, workdirs, **options)

    monkeypatch.setattr(ensemble, "train_together", counting)
    return sizes


def test_together_is_apart_but_for_rounding(tmp_path, experiment, apart, trained_together):
    results = train_members(experiment, members(tmp_path), label="digits")
    assert trained_together == [3]
    for seed, result in enumerate(results):
        mine, other = tmp_path / f"seed{seed}", apart / f"seed{seed}"
        assert_close(mine, other)
        assert result == json.loads((mine / "result.json").read_text())
        assert (mine / "recipe.json").read_bytes() == (other / "recipe.json").read_bytes()
        assert (mine / "split.json").read_bytes() == (other / "split.json").read_bytes()


def test_tf_data_gives_the_same_runs(tmp_path, apart):
    train_members(BuiltRecipe(RECIPE), members(tmp_path, (1,)), label="digits")
    assert_close(tmp_path / "seed1", apart / "seed1")


def test_as_many_as_fit_in_memory(
    tmp_path, monkeypatch, caplog, experiment, apart, trained_together
):
    caplog.set_level(logging.INFO)
    needed = bytes_needed(ensemble.job_of(experiment, members(tmp_path, (0, 1))))
    assert 0 < needed < device_memory()
    monkeypatch.setattr(
        ensemble, "device_memory", lambda: int(1.02 * needed / ensemble._SHARE_OF_MEMORY)
    )
    train_members(experiment, members(tmp_path), label="digits")
    assert trained_together == [2]
    assert caplog.text.count("of 3 runs, 2 at a time fit in") == 1
    assert_close(tmp_path / "seed2", apart / "seed2")


def test_one_at_a_time_where_no_two_fit(tmp_path, monkeypatch, experiment, trained_together):
    monkeypatch.setattr(ensemble, "device_memory", lambda: 1)
    train_members(experiment, members(tmp_path, (0, 1)), label="digits")
    assert trained_together == []
    assert (tmp_path / "seed1" / "result.json").exists()


def test_finished_members_are_left_alone(tmp_path, experiment, trained_together):
    train_members(experiment, members(tmp_path, (1,)), label="digits")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed1").rglob("*")}
    train_members(experiment, members(tmp_path), label="digits")
    assert trained_together == [2]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seed1").rglob("*")} == before
    assert train_members(experiment, members(tmp_path), label="digits")[2]["step"] > 0
    assert trained_together == [2]


def test_convolutions_on_cpu_go_apart_by_default(tmp_path, trained_together):
    assert not ensemble._together(of_one_epoch("small_conv"))
    assert ensemble._together(of_one_epoch("small_vit"))
    assert ensemble._together(of_one_epoch("small_conv", TOGETHER))


def cifar(monkeypatch, capfd, *flags):
    small = [
        "--data.source",
        "digits",
        "--network",
        "mlp",
        "--data.profile.imbalance-factor",
        "10",
        "--epochs",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["cifar_lt", *small, *map(str, flags)])
    status = 0
    try:
        command_line.run(cifar_lt.main)
    except SystemExit as stop:
        status = stop.code
    return status, capfd.readouterr().err


def test_seeds_and_radii_make_a_product_of_runs(tmp_path, monkeypatch, capfd, trained_together):
    flags = [
        "--method",
        "sam",
        "--seeds",
        "0-1",
        "--ensemble",
        "together",
        "--rhos",
        "0.05",
        "1",
        "--pipeline",
        "device",
    ]
    status, log = cifar(monkeypatch, capfd, *flags, "--workdir", tmp_path / "all")
    assert (status, trained_together) == (0, [4]), log
    names = {path.name for path in (tmp_path / "all").iterdir()}
    assert names == {"rho0.05-seed0", "rho0.05-seed1", "rho1.0-seed0", "rho1.0-seed1"}
    recipe = json.loads((tmp_path / "all" / "rho1.0-seed0" / "recipe.json").read_text())
    method = recipe["recipe"]["stages"][0]["method"]
    assert (method["rho"], recipe["seed"]) == (1.0, 0)
    alone = ["--method", "sam", "--seed", "1", "--method.rho", "1", "--workdir", tmp_path / "alone"]
    assert cifar(monkeypatch, capfd, *alone)[0] == 0
    assert_close(tmp_path / "all" / "rho1.0-seed1", tmp_path / "alone")
    losses = [evaluations(path)[-1]["test_loss"] for path in (tmp_path / "all").iterdir()]
    assert len(set(losses)) == 4


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seeds", "0-x"], "--seeds must be numbers and ranges such as 0-7, got 0-x"),
        (["--seeds", "5-2"], "--seeds must be numbers and ranges such as 0-7, got 5-2"),
        (["--seeds", "0-2", "1"], "seeds must be different, got 0 1 2 1"),
        (["--seeds"], "seeds must name at least one seed"),
        (["--rhos", "0.1"], "rhos must be none for SGD, which has no rho, got 0.1"),
        (["--method", "sam", "--rhos", "0.1", "-1"], "rho must be at least 0, got -1"),
        (["--method", "sam", "--rhos", "0.1", "0.1"], "rhos must be different"),
        (["--ensemble", "some"], "--ensemble"),
        (["--pipeline", "gpu"], "--pipeline"),
    ],
)
def test_bad_flags_of_members(tmp_path, monkeypatch, capfd, flags, named):
    status, log = cifar(monkeypatch, capfd, *flags, "--workdir", tmp_path / "run")
    assert status == 2
    assert len(log.splitlines()) == 1, log
    assert named in log
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["0-7"], tuple(range(8))), (["0", "1", "5-6"], (0, 1, 5, 6)), (["-3"], (-3,)), ([], ())],
)
def test_lists_and_ranges_of_numbers(words, expected):
    assert number_ranges._numbers(words) == expected


@pytest.mark.soak
def test_the_device_pipeline_needs_no_tensorflow(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.modules["tensorflow"] = None
from jaxlt import recipes
profile = recipes.Exponential(imbalance_factor=10)
recipe = recipes.Recipe(
    data=recipes.Data(source=recipes.Digits(), profile=profile),
    network=recipes.Small(architecture="mlp"),
    stages=(recipes.Stage(epochs=1),),
)
recipes.train(recipe, {str(tmp_path / "run")!r}, execution=recipes.Execution("device"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
