"""Which images a recipe trains on and evaluates, of folders with and without test images."""

import numpy as np
import pytest
from PIL import Image

from jaxlt import UsageError
from jaxlt.recipes.built_recipe import BuiltRecipe, Member
from jaxlt.recipes.data import Native
from jaxlt.recipes.named import RECIPES, vary
from jaxlt.recipes.network import Small
from jaxlt.recipes.recorded import TrainedRun
from jaxlt.recipes.sources import Folder
from jaxlt.training import train

COUNTS = {"ant": 6, "bee": 4, "cat": 1}


def write(place, counts):
    for label, (name, count) in enumerate(counts.items()):
        (place / name).mkdir(parents=True)
        for number in range(count):
            color = (60 * label, 20 * number, 100)
            Image.new("RGB", (9, 7), color).save(place / name / f"{number}.png")


def recipe_of(directory, **fields):
    recipe = vary(RECIPES["sgd_digits"], network=Small(architecture="mlp"), epochs=1, batch_size=4)
    source = Folder(directory=str(directory))
    return vary(recipe, source=source, profile=Native(), image_size=8, **fields)


def evaluated_by(built):
    labels = np.concatenate([batch.labels for batch in built._feed.evaluated()])
    return labels[labels >= 0].tolist()


def test_one_class_is_nothing_to_train_on(tmp_path):
    write(tmp_path / "train", {"cat": 2})
    with pytest.raises(UsageError, match="source must be of two classes or more, got folder:"):
        BuiltRecipe(recipe_of(tmp_path))


def test_validation_images_stand_in_for_test_images(tmp_path, caplog):
    caplog.set_level("INFO")
    write(tmp_path / "train", COUNTS)
    write(tmp_path / "val", {"ant": 1, "bee": 2})
    built = BuiltRecipe(recipe_of(tmp_path))
    assert "has no test images: its validation images are evaluated" in caplog.text
    assert built.split.class_counts == (6, 4, 1)
    assert evaluated_by(built) == [0, 1, 1]
    # So that whoever reads the run knows it.
    assert built.recipe.evaluation.images == "val"


def test_test_images_are_evaluated_where_they_are(tmp_path):
    for part, counts in (("train", COUNTS), ("val", {"ant": 1}), ("test", {"cat": 2})):
        write(tmp_path / part, counts)
    built = BuiltRecipe(recipe_of(tmp_path))
    assert evaluated_by(built) == [2, 2]
    assert built.recipe.evaluation.images == "test"


def test_without_either_a_share_is_held_out_or_the_remedy_named(tmp_path):
    write(tmp_path / "photos", COUNTS)
    with pytest.raises(UsageError, match=r"must have test images, got folder:.*validation 0\.2"):
        BuiltRecipe(recipe_of(tmp_path / "photos"))
    built = BuiltRecipe(recipe_of(tmp_path / "photos", validation=0.25))
    assert built.split.class_counts == (4, 3, 1)
    assert evaluated_by(built) == [0, 0, 1]
    train(built.job(Member(0, tmp_path / "run")), built.workdir(Member(0, tmp_path / "run")))
    run = TrainedRun(tmp_path / "run")
    images, indices = run.evaluated
    assert images is run.source.train
    assert images.labels[indices].tolist() == [0, 0, 1]
    assert sorted([*indices.tolist(), *run.split.indices.tolist()]) == list(range(11))
    # Other recipes hold out the same.
    again = BuiltRecipe(vary(built.recipe, epochs=2))
    assert again.split.indices.tolist() == built.split.indices.tolist()
