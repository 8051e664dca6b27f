"""Runs that begin with the weights of another run: classes by name, the run untouched."""

import json
import logging
import shutil

import numpy as np
import pytest
from lanes import soak_but
from PIL import Image

from jaxlt import UsageError, recipes
from jaxlt.evaluation import Predictor
from jaxlt.recipes.built_recipe import BuiltRecipe, Member

ANIMALS, OTHERS = ("bee", "cat", "dog"), ("ape", "cat", "dog", "eel")
SIDE = 8


def photos(directory, names):
    """Writes four training images and a test image of each class."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        for part, count in (("train", 4), ("test", 1)):
            (directory / part / name).mkdir(parents=True)
            for image in range(count):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                Image.fromarray(pixels).save(directory / part / name / f"{image}.png")
    return directory


def recipe_of(directory, network=None, **fields):
    data = recipes.Data(
        source=recipes.Folder(directory=str(directory)),
        profile=recipes.Native(),
        image_size=fields.pop("image_size", SIDE),
    )
    stage = recipes.Stage(epochs=1, batch_size=4, augmentation=recipes.Augmentation(shift="none"))
    return recipes.Recipe(
        data=data,
        network=network or recipes.Small(architecture="mlp"),
        stages=(stage, *fields.pop("then", ())),
        **fields,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return photos(root / "animals", ANIMALS), photos(root / "others", OTHERS)


TINY = {"size": "tiny", "classifier": recipes.CosineLayer(scale=25.0)}
NETWORKS = {
    "mlp": recipes.Small(architecture="mlp"),
    "batch_norm": recipes.Small(architecture="resnet8"),
    "cosine": recipes.Small(architecture="small_conv", classifier=recipes.CosineLayer()),
    "adapted": recipes.RandomEncoder(
        **TINY, adaptation=recipes.Adaptation(kinds=("adaptformer",), rank=2)
    ),
    "whole": recipes.RandomEncoder(**TINY),
}
# Statistics of batches are more than the others have, but for frozen parameters.
SOON = ("batch_norm",)
EACH = soak_but(SOON, NETWORKS)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A finished run of each network on the first images, trained when asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(name, **fields):
        if name not in made:
            network = NETWORKS.get(name, NETWORKS["mlp"])
            recipe = recipe_of(data[0], network, **fields)
            made[name] = recipes.train(recipe, root / name).path
        return made[name]

    return run


def state_of(recipe, seed=0):
    return BuiltRecipe(recipe).stages[0].initial_state(seed)


def all_bytes(directory):
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("name", EACH)
def test_a_run_begins_where_another_ended(name, data, runs):
    path = runs(name)
    before = all_bytes(path)
    built = BuiltRecipe(recipe_of(data[0], NETWORKS[name], init_from=str(path)))
    images = built.source.test.load(np.arange(3))
    expected = Predictor.load(path).logits(images)
    mean, std = np.array(built.source.mean), np.array(built.source.std)
    normalized = ((images / 255 - mean) / std).astype(np.float32)
    stage = built.stages[0]
    found = stage.logits(stage.initial_state(5), normalized)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert all_bytes(path) == before


@pytest.mark.parametrize("name", EACH)
def test_classes_keep_their_weights_by_name(name, data, runs, caplog):
    path, caplog.handler.level = runs(name), logging.INFO
    caplog.set_level(logging.INFO, logger="jaxlt")
    recipe = recipe_of(data[1], NETWORKS[name], init_from=str(path))
    state, drawn = state_of(recipe, 3), state_of(recipe.replace(init_from=None), 3)
    trained = Predictor.load(path).variables["params"]["classifier"]
    for leaf in trained:
        heads = (state.params["classifier"], drawn.params["classifier"], trained)
        values, new, old = (np.asarray(head[leaf]) for head in heads)
        # cat and dog had labels 1 and 2, and have them here.
        np.testing.assert_array_equal(values[..., 1:3], old[..., 1:3])
        np.testing.assert_array_equal(values[..., [0, 3]], new[..., [0, 3]])
    assert "2 classes kept, 2 new (ape, eel), 1 dropped (bee)" in caplog.text


def test_names_and_not_labels_decide(data, runs, tmp_path):
    path = runs("mlp")
    fewer = photos(tmp_path / "fewer", ("dog", "bee"))
    state = state_of(recipe_of(fewer, init_from=str(path)))
    trained = Predictor.load(path).variables["params"]["classifier"]["kernel"]
    # Directories are classes in the order of their names: bee, dog.
    np.testing.assert_array_equal(state.params["classifier"]["kernel"], trained[:, [0, 2]])


def test_without_a_common_class_the_log_says_so(runs, tmp_path, caplog):
    birds = photos(tmp_path / "birds", ("auk", "emu"))
    state_of(recipe_of(birds, init_from=str(runs("mlp"))))
    assert "the classifier is new" in caplog.text


def test_factors_of_classes_become_part_of_their_weights(data, runs):
    scaled = recipes.Stage(
        epochs=1,
        batch_size=4,
        learn_scale=True,
        trainable="scale",
        augmentation=recipes.Augmentation(shift="none"),
    )
    path = runs("scaled", then=(scaled,))
    trained = Predictor.load(path).variables["params"]["classifier"]
    state = state_of(recipe_of(data[0], init_from=str(path)))
    kernel = np.asarray(trained["kernel"]) * np.asarray(trained["scale"])
    np.testing.assert_allclose(state.params["classifier"]["kernel"], kernel, rtol=1e-6)
    bias = np.asarray(trained["bias"]) * np.asarray(trained["scale"])
    np.testing.assert_allclose(state.params["classifier"]["bias"], bias, rtol=1e-6)


@pytest.mark.parametrize("name", soak_but(SOON, [*SOON, "whole"]))
def test_images_may_be_of_another_size(name, data, runs):
    recipe = recipe_of(data[1], NETWORKS[name], init_from=str(runs(name)), image_size=16)
    assert np.isfinite(state_of(recipe).params["classifier"]["kernel"]).all()


@pytest.mark.soak
def test_a_head_trained_alone_goes_on_in_full(data, runs, tmp_path):
    probe = recipes.RandomEncoder(**TINY, adaptation=recipes.Adaptation(kinds=("linear_probe",)))
    path = recipes.train(recipe_of(data[0], probe), tmp_path / "probe").path
    recipe = recipe_of(data[0], NETWORKS["adapted"], init_from=str(path))
    trained = Predictor.load(path).variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(state_of(recipe).params["classifier"]["kernel"], trained)
    with pytest.raises(UsageError, match=r"adaptation\.kinds must be adaptformer, .*linear_probe"):
        BuiltRecipe(recipe_of(data[0], probe, init_from=str(runs("adapted"))))


def test_a_run_is_known_by_the_contents_of_the_first(data, runs, tmp_path):
    path = runs("mlp")
    member, recipe = Member(0, tmp_path / "run"), recipe_of(data[1], init_from=str(path))
    BuiltRecipe(recipe).workdir(member)
    written = json.loads((member.path / "recipe.json").read_text())
    assert written["contents"]["init_from"].startswith("sha256:")
    moved = tmp_path / "moved"
    shutil.copytree(path, moved)
    BuiltRecipe(recipe.replace(init_from=str(moved))).workdir(member)
    newest = max(int(file.name) for file in (path / "checkpoints").iterdir())
    step = str(path / "checkpoints" / str(newest))
    BuiltRecipe(recipe.replace(init_from=step)).workdir(member)
    other = recipes.train(recipe_of(data[0]), tmp_path / "other", seed=1).path
    with pytest.raises(UsageError, match=r"got another: contents\.init_from is 'sha256:"):
        BuiltRecipe(recipe.replace(init_from=str(other))).workdir(member)
    with pytest.raises(UsageError, match="init_from"):
        BuiltRecipe(recipe.replace(init_from=None)).workdir(member)


def test_a_run_of_no_other_is_what_it_was():
    assert "init_from" not in recipes.Recipe().identity()["recipe"]


def test_a_run_that_lies_among_checkpoints_is_a_run(data, runs, tmp_path):
    path = tmp_path / "checkpoints" / "7"
    shutil.copytree(runs("mlp"), path)
    state = state_of(recipe_of(data[0], init_from=str(path)))
    trained = Predictor.load(path).variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(state.params["classifier"]["kernel"], trained)


def test_a_home_that_is_nobodys_is_refused(data):
    with pytest.raises(UsageError, match="~nobody-here/run"):
        BuiltRecipe(recipe_of(data[0], init_from="~nobody-here/run"))


def test_it_trains_and_goes_on_when_stopped(data, runs, tmp_path):
    recipe = recipe_of(data[1], init_from=str(runs("batch_norm")), network=NETWORKS["batch_norm"])
    run = recipes.train(recipe, tmp_path / "run")
    assert len(run.result["per_class"]) == len(OTHERS)
    (run.path / "result.json").unlink()
    assert recipes.train(recipe, tmp_path / "run").result["accuracy"] == run.result["accuracy"]


def without(name):
    def change(path):
        (path / name).unlink()

    return change


def without_checkpoints(path):
    shutil.rmtree(path / "checkpoints")


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        (without("model.json"), {}, "init_from must be a run's directory, .* has no model.json"),
        (
            without("result.json"),
            {},
            r"must be a finished run, .*; give .*/checkpoints/3 ",
        ),
        (without_checkpoints, {}, "must have a checkpoint, got none"),
        (
            None,
            {"network": recipes.Small(architecture="small_conv")},
            r"network\.architecture must be mlp, that of run .*, got small_conv; give --network",
        ),
        (
            None,
            {"network": NETWORKS["whole"]},
            "network must be mlp, that of run .*, got random:tiny",
        ),
        (
            None,
            {"network": recipes.Small(architecture="mlp", classifier=recipes.CosineLayer())},
            r"network\.classifier must be linear, that of run .*, got cosine",
        ),
        (None, {"image_size": 12}, r"data\.image_size must be 8, that of run .*, got 12"),
    ],
)
def test_what_cannot_be_begun_with_is_refused(data, runs, tmp_path, change, fields, words):
    path = tmp_path / "run"
    shutil.copytree(runs("mlp"), path)
    if change is not None:
        change(path)
    before = all_bytes(path)
    with pytest.raises(UsageError, match=words) as caught:
        BuiltRecipe(recipe_of(data[1], init_from=str(path), **fields))
    assert "\n" not in str(caught.value)
    assert all_bytes(path) == before


@pytest.mark.soak
def test_a_rank_that_follows_the_classes_is_named(data, runs):
    network = NETWORKS["adapted"].replace(adaptation=recipes.Adaptation(kinds=("adaptformer",)))
    with pytest.raises(UsageError, match=r"adaptation\.rank must be 2, that of run .*; give --net"):
        BuiltRecipe(recipe_of(data[1], network, init_from=str(runs("adapted"))))


def test_an_unfinished_run_gives_a_step(data, runs, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(runs("mlp"), path)
    (path / "result.json").unlink()
    state = state_of(recipe_of(data[0], init_from=f"{path}/checkpoints/3"))
    trained = Predictor.load(runs("mlp")).variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(state.params["classifier"]["kernel"], trained)
