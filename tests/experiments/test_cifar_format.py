"""Recipes of CIFAR end to end, on files in the format of tensorflow-datasets."""

import json
import sys

import numpy as np
import pytest
from lanes import soak_but
from tfds_files import write_known

from experiments import cifar_lt, command_line
from jaxlt.devices.backends import import_tensorflow
from jaxlt.recipes.named import RECIPES
from jaxlt.recipes.stage import Stage

PER_CLASS, TEST_PER_CLASS = 30, 4
SHORT = ["--network", "mlp", "--epochs", "2", "--batch-size", "32", "--evaluation.epochs", "1"]
# Samplers, losses, augmentation, two stages of every sort.
CHOSEN = (
    "focal_sam_cifar10",
    "crt_cifar10",
    "tau_norm_cifar10",
    "mislas_cifar10",
    "cc_sam_cifar10",
    "gcl_cifar10",
    "cc_sam_released_cifar10",
    "balanced_softmax_decoupled_cifar10_if200",
    "swa_1_2_mislas_cifar100",
    "mp_random_1_ldam_drw_cifar100",
)


def images_of(label, count, seed):
    """Noise around a color that tells the class."""
    rng = np.random.default_rng((label, seed))
    color = np.random.default_rng(label).integers(60, 200, 3)
    return np.clip(color + rng.normal(0, 20, (count, 32, 32, 3)), 0, 255).astype(np.uint8)


def examples(split, num_classes, per_class):
    made = [
        {"image": image, "label": label}
        for label in range(num_classes)
        for image in images_of(label, per_class, seed=len(split))
    ]
    for number, example in enumerate(made):
        example["id"] = f"{split}_{number:05d}"
        if num_classes == 100:
            example["coarse_label"] = 0
    return made


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory):
    import_tensorflow()
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("tfds")
    for num_classes in (10, 100):
        splits = {
            split: examples(split, num_classes, per_class)
            for split, per_class in (("train", PER_CLASS), ("test", TEST_PER_CLASS))
        }
        write_known(tfds, directory, f"cifar{num_classes}", f"Cifar{num_classes}", splits)
    return directory


@pytest.mark.parametrize("name", soak_but({"cc_sam_cifar10"}, CHOSEN))
def test_a_recipe_runs_from_its_files_to_its_result(name, data_directory, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_directory))
    recipe = RECIPES[name]
    flags = [
        "--recipe",
        name,
        "--data.profile.imbalance-factor",
        "10",
        *SHORT,
        "--workdir",
        str(tmp_path),
    ]
    if recipe.first.reweighting is not None:
        flags += ["--reweighting.epoch", "1"]
    if recipe.first.swa_epoch is not None:
        flags += ["--swa-epoch", "1"]
    for number, stage in enumerate(recipe.stages[1:]):
        if isinstance(stage, Stage):
            flags += [f"--then.{number}.epochs", "2", f"--then.{number}.batch-size", "32"]
            if stage.swa_epoch is not None:
                flags += [f"--then.{number}.swa-epoch", "1"]
    monkeypatch.setattr(sys, "argv", ["cifar_lt", *flags])
    command_line.run(cifar_lt.main)
    result = json.loads((tmp_path / "result.json").read_text())
    num_classes = len(result["per_class"])
    assert f"cifar{num_classes}" in name
    assert result.get("stage", 0) == len(recipe.stages) - 1
    # 30 images of the largest class, 3 of the smallest.
    split = json.loads((tmp_path / "split.json").read_text())
    assert (split["class_counts"][0], split["class_counts"][-1]) == (30, 3)
    assert np.isfinite(result["test_loss"])


@pytest.mark.soak
def test_the_colors_are_learned(data_directory, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_directory))
    flags = ["--recipe", "cc_sam_cifar10", *SHORT, "--epochs", "20", "--evaluation.epochs", "20"]
    flags += [
        "--data.profile.imbalance-factor",
        "10",
        "--optimizer.lr",
        "0.01",
        "--workdir",
        str(tmp_path),
    ]
    flags += ["--then.0.epochs", "5", "--augmentation.shift", "none"]
    monkeypatch.setattr(sys, "argv", ["cifar_lt", *flags])
    command_line.run(cifar_lt.main)
    assert json.loads((tmp_path / "result.json").read_text())["accuracy"] > 0.6
