"""Recipes of the large benchmarks end to end, on trees of JPEG files in the published layouts."""

import importlib
import json
import sys

import numpy as np
import pytest
from jpeg_trees import long_tail, write_tree
from matplotlib import image

from experiments import command_line
from experiments.recipes import BENCHMARKS, PUBLISHED, RECIPES
from jaxlt.evaluation import ConfidenceBins

COUNTS = long_tail(8, 24, 2)
SHORT = ["--image-size", "32", "--batch-size", "16", "--epochs", "2", "--eval-epochs", "1"]
SHORT_STAGE = ["--then.0.epochs", "1", "--then.0.batch-size", "16"]
CHOSEN = {
    "focal_sam_imagenet_lt": ("imagenet", ["--model", "small_conv", "--rho-epochs", "1"]),
    "mislas_places_lt": (
        "places",
        ["--model", "resnet10", *SHORT_STAGE, "--init-weights", "None", "--init-last-block"],
    ),
    "cc_sam_inaturalist": ("inaturalist", ["--model", "small_conv", *SHORT_STAGE]),
}


@pytest.fixture
def train(monkeypatch, capfd):
    """Runs a benchmark's program in this process; returns its status and its last line."""

    def run(program, *flags):
        monkeypatch.setattr(sys, "argv", [program, *map(str, flags)])
        status = 0
        try:
            command_line.run(importlib.import_module(f"experiments.{program}").main)
        except SystemExit as stop:
            status = stop.code
        return status, capfd.readouterr().err.splitlines()[-1]

    return run


@pytest.mark.parametrize("name", CHOSEN)
def test_a_recipe_runs_from_its_lists_to_its_result(name, train, tmp_path):
    layout, flags = CHOSEN[name]
    tree = write_tree(tmp_path / "data", layout, COUNTS, newline="\r\n")
    program = next(program for program, recipes in BENCHMARKS.items() if name in recipes)
    workdir = tmp_path / "run"
    status, line = train(
        program, "--recipe", name, "--dataset", tree.spec, *SHORT, *flags, "--workdir", workdir
    )
    assert status == 0, line
    result = json.loads((workdir / "result.json").read_text())
    assert len(result["per_class"]) == len(COUNTS)
    assert result.get("stage", 0) == len(RECIPES[name].then)
    assert np.isfinite(result["test_loss"])
    bins = {name: np.array(values) for name, values in result["confidence_bins"].items()}
    assert ConfidenceBins(**bins).ece == result["ece"]
    assert image.imread(workdir / "reliability.png").std() > 0
    assert json.loads((workdir / "split.json").read_text())["class_counts"] == list(COUNTS)


def test_recipes_are_those_of_their_benchmark():
    sizes = {name: len(recipes) for name, recipes in BENCHMARKS.items()}
    assert sum(sizes.values()) == len(RECIPES)
    for name in ("imagenet_lt", "places_lt", "inaturalist"):
        assert all(recipe.profile == "native" for recipe in BENCHMARKS[name].values())
        assert sum(recipe in PUBLISHED for recipe in BENCHMARKS[name]) >= 7


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--recipe", "cc_sam_inet"], "--recipe must be one that --list prints"),
        (["--dataset", "list:nowhere,train.txt,test.txt"], "root nowhere"),
        (["--dataset", "list:.,train.txt"], "must be list:ROOT,TRAIN,TEST or"),
    ],
)
def test_a_bad_flag(train, tmp_path, flags, named):
    workdir = tmp_path / "run"
    status, line = train("imagenet_lt", *flags, "--workdir", workdir)
    assert status == 2
    assert named in line
    assert not workdir.exists()
