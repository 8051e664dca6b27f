"""Recipes of the large benchmarks end to end, on trees of JPEG files in the published layouts."""

import dataclasses
import importlib
import itertools
import json
import shutil
import sys

import numpy as np
import pytest
from jpeg_trees import long_tail, write_tree
from lanes import soak_but
from matplotlib import image
from PIL import Image
from small_runs import run_program

from experiments import command_line, open_lt
from experiments.loaded_runs import load_run
from experiments.ood import __main__ as ood
from jaxlt.evaluation import ConfidenceBins, Predictor
from jaxlt.recipes.data import Native
from jaxlt.recipes.named import BENCHMARKS, PUBLISHED, RECIPES

COUNTS = long_tail(8, 24, 2)
SHORT = [
    "--data.image-size",
    "32",
    "--batch-size",
    "16",
    "--epochs",
    "2",
    "--evaluation.epochs",
    "1",
]
SHORT_STAGE = ["--then.0.epochs", "1", "--then.0.batch-size", "16"]
CHOSEN = {
    "focal_sam_imagenet_lt": ("imagenet", ["--network", "small_conv", "--method.rho-epochs", "1"]),
    "mislas_places_lt": (
        "places",
        [
            "--network",
            "resnet10",
            *SHORT_STAGE,
            "--network.weights",
            "none",
            "--network.last-block-weights",
        ],
    ),
    "cc_sam_inaturalist": ("inaturalist", ["--network", "small_conv", *SHORT_STAGE]),
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


@pytest.mark.parametrize("name", soak_but({"cc_sam_inaturalist"}, CHOSEN))
def test_a_recipe_runs_from_its_lists_to_its_result(name, train, tmp_path):
    layout, flags = CHOSEN[name]
    tree = write_tree(tmp_path / "data", layout, COUNTS, newline="\r\n")
    program = next(program for program, recipes in BENCHMARKS.items() if name in recipes)
    workdir = tmp_path / "run"
    status, line = train(
        program, "--recipe", name, "--data.source", tree.spec, *SHORT, *flags, "--workdir", workdir
    )
    assert status == 0, line
    result = json.loads((workdir / "result.json").read_text())
    assert len(result["per_class"]) == len(COUNTS)
    assert result.get("stage", 0) == len(RECIPES[name].stages) - 1
    assert np.isfinite(result["test_loss"])
    bins = {name: np.array(values) for name, values in result["confidence_bins"].items()}
    assert ConfidenceBins(**bins).ece == result["ece"]
    assert image.imread(workdir / "reliability.png").std() > 0
    assert json.loads((workdir / "split.json").read_text())["class_counts"] == list(COUNTS)


@pytest.fixture(scope="module")
def skipping(tmp_path_factory):
    """Trees and flags of a run in which an image of each list cannot be decoded."""
    directory = tmp_path_factory.mktemp("skipping")
    tree = write_tree(directory / "data", "imagenet", COUNTS[::-1], open_images=5)
    for listed in (tree.train, tree.test, tree.open):
        (tree.root / listed.read_text().split()[0]).write_bytes(b"no image")
    dataset = dataclasses.replace(tree, open=None).spec
    flags = [
        "--recipe",
        "la_imagenet_lt",
        "--data.source",
        dataset,
        *SHORT,
        "--network",
        "small_conv",
    ]
    flags += ["--check-images", "--data.relabel", "by_size", "--data.normalization", "dataset"]
    flags += ["--optimizer.lr", "0.001", "--workdir", directory / "run"]
    return tree, directory / "run", flags


def test_unreadable_images_are_all_named_before_training(train, skipping):
    tree, workdir, flags = skipping
    status, line = train("imagenet_lt", *flags)
    assert status == 2
    assert line.startswith("error: images must be decodable, got 2 that are not: ")
    assert all(f"{listed}:1 " in line for listed in (tree.train, tree.test))
    assert not workdir.exists()


def test_a_run_that_skips_images_is_evaluated_without_them(
    train, skipping, monkeypatch, capfd, tmp_path
):
    tree, workdir, flags = skipping
    assert train("imagenet_lt", *flags, "--data.unreadable", "skip")[0] == 0
    result = json.loads((workdir / "result.json").read_text())
    assert result["unreadable_evaluated"] == 1
    assert sum(result["confidence_bins"]["counts"]) == 2 * len(COUNTS) - 1

    opened = ["--checkpoint", workdir, "--metric", "prototype", "--output", tmp_path / "open"]
    status, _, errors = run_program(monkeypatch, capfd, open_lt, *opened)
    assert status == 2
    assert "has no open list; it may be the run's own with one more list" in errors[-1]
    assert run_program(monkeypatch, capfd, open_lt, *opened, "--open", tree.spec)[0] == 0
    (measures,) = json.loads((tmp_path / "open" / "open_set.json").read_text())["runs"].values()
    assert (measures["closed_images"], measures["open_images"]) == (2 * len(COUNTS) - 1, 4)
    accuracy = measures["curve"]["accuracy"][0]
    assert accuracy == pytest.approx(result["accuracy"])

    reversed_numbers = tuple(range(len(COUNTS)))[::-1]
    assert load_run(workdir, "run").source.class_numbers == reversed_numbers
    assert json.loads((workdir / "split.json").read_text())["class_counts"] == list(COUNTS)

    # The files of ImageNet-C are cut already.
    pixels = np.random.default_rng(0).integers(0, 256, (len(COUNTS), 32, 32, 3), np.uint8)
    names = Predictor.load(workdir).class_names
    for severity, name in itertools.product(range(1, 6), names):
        place = tmp_path / "c" / "fog" / str(severity) / name
        place.mkdir(parents=True)
        Image.fromarray(pixels[names.index(name)]).save(place / "0.png")
    shifted = ["--checkpoint", workdir, "--corruptions-tree", tmp_path / "c"]
    assert run_program(monkeypatch, capfd, ood, *shifted, "--output", tmp_path / "ood")[0] == 0
    (found,) = json.loads((tmp_path / "ood" / "ood.json").read_text())["runs"].values()
    right = Predictor.load(workdir).logits(pixels).argmax(axis=1) == np.arange(len(COUNTS))
    assert found["corruption_errors"]["fog"] == pytest.approx(1 - right.mean())

    # Numbers of directories are those of before the classes were sorted.
    for name, number in zip(names, reversed_numbers, strict=True):
        (tmp_path / "v2" / str(number)).mkdir(parents=True)
        shutil.copy(tmp_path / "c" / "fog" / "1" / name / "0.png", tmp_path / "v2" / str(number))
    numbered = ["--checkpoint", workdir, "--folders", tmp_path / "v2", "--output", tmp_path / "v"]
    assert run_program(monkeypatch, capfd, ood, *numbered)[0] == 0
    (found,) = json.loads((tmp_path / "v" / "ood.json").read_text())["runs"].values()
    cut = Predictor.load(workdir).read_files([tmp_path / "c/fog/1" / n / "0.png" for n in names])
    right = Predictor.load(workdir).logits(cut).argmax(axis=1) == np.arange(len(COUNTS))
    np.testing.assert_array_equal(found["sets"]["v2"]["per_class"], right)


def test_recipes_are_those_of_their_benchmark():
    sizes = {name: len(recipes) for name, recipes in BENCHMARKS.items()}
    assert sum(sizes.values()) == len(RECIPES)
    for name in ("imagenet_lt", "places_lt", "inaturalist"):
        assert all(recipe.data.profile == Native() for recipe in BENCHMARKS[name].values())
        assert sum(recipe in PUBLISHED for recipe in BENCHMARKS[name]) >= 7


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--recipe", "cc_sam_inet"], "recipe must be a named one, such as cc_sam_i"),
        (["--data.source", "list:nowhere,train.txt,test.txt"], "must be a directory, got nowhere"),
        (
            ["--data.source", "list:.,train.txt,"],
            "must be list:ROOT,TRAIN or list:ROOT,TRAIN,TEST or",
        ),
    ],
)
def test_a_bad_flag(train, tmp_path, flags, named):
    workdir = tmp_path / "run"
    status, line = train("imagenet_lt", *flags, "--workdir", workdir)
    assert status == 2
    assert named in line
    assert not workdir.exists()


@pytest.mark.soak
def test_without_test_images_training_images_must_be_held_out(train, monkeypatch, capfd, tmp_path):
    tree = write_tree(tmp_path, "imagenet", COUNTS)
    flags = ["--data.source", f"list:{tree.root},{tree.train}", *SHORT, "--network", "small_conv"]
    flags += [
        "--data.profile",
        "exponential",
        "--data.profile.imbalance-factor",
        "2",
        "--data.profile.max-per-class",
        "2",
    ]
    workdir = tmp_path / "run"
    status, line = train("imagenet_lt", *flags, "--workdir", workdir)
    assert status == 2
    assert "data.source must have test images, got list:" in line
    assert "--data.validation-per-class" in line
    assert not workdir.exists()
    assert (
        train("imagenet_lt", *flags, "--data.validation-per-class", "1", "--workdir", workdir)[0]
        == 0
    )
    # Other programs take what was held out.
    asked = ["--checkpoint", workdir, "--output", tmp_path / "out", "--open", "digits"]
    status, _, errors = run_program(monkeypatch, capfd, open_lt, *asked)
    assert status == 0
    assert "has no test images: those that run" in " ".join(errors)
