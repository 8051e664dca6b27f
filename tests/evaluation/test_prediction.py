import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from jaxlt.errors import UsageError
from jaxlt.evaluation import Prediction, Predictor
from jaxlt.models import create_model
from jaxlt.training import Checkpoints, make_state_fn

SHAPES = {"small_conv": (8, 8, 1), "mlp": (8, 12, 3), "resnet8": (8, 12, 3)}
CLASS_NAMES = ["cat", "dog", "owl"]


def description(name, **fields):
    channels = SHAPES[name][-1]
    values = {"model": name, "num_classes": 3, "classifier": "linear", "precision": "float32"}
    values |= {"image_shape": SHAPES[name], "class_names": CLASS_NAMES}
    return {
        **values,
        "mean": [0.4, 0.5, 0.6][:channels],
        "std": [0.2, 0.3, 0.25][:channels],
    } | fields


def create(name, **fields):
    """A network and the function from a seed to its state."""
    model = create_model(name, 3, image_shape=SHAPES[name], **fields)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    return model, make_state_fn(model, optimizer, SHAPES[name])


def save_run(directory, name="small_conv", num=1, classifier="linear"):
    """A run's directory with a checkpoint for each state; returns the network and the states."""
    values = description(name, classifier=classifier)
    (directory / "model.json").write_text(json.dumps(values))
    model, state_fn = create(name, classifier=classifier)
    checkpoints, saved = Checkpoints(directory / "checkpoints", keep=num), []
    for seed in range(num):
        state = state_fn(seed)
        moved = jax.tree.map(lambda leaf: leaf + 0.5, state.batch_stats)
        saved.append(dataclasses.replace(state, step=state.step + seed, batch_stats=moved))
        checkpoints.save(saved[-1], {"seconds": 1.0}, {"balanced_accuracy": 0.5})
    checkpoints.close()
    (directory / "result.json").write_text("{}")
    return model, saved


def direct_logits(model, state, name, images):
    """By the definition of the normalization, channel by channel."""
    pixels = images.astype(np.float64) / 255
    values = description(name)
    for channel, (mean, std) in enumerate(zip(values["mean"], values["std"], strict=True)):
        pixels[..., channel] = (pixels[..., channel] - mean) / std
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    apply = jax.jit(model.apply, static_argnames="train")
    return np.asarray(apply(variables, pixels.astype(np.float32), train=False))


def random_images(name, count=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPES[name]), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    model, (state,) = save_run(directory)
    return directory, model, state


def write_image(path, pixels):
    Image.fromarray(pixels.squeeze()).save(path)
    return path


@pytest.mark.parametrize("name", ["small_conv", "resnet8"])
def test_logits_are_the_networks_on_normalized_images(tmp_path, name):
    model, (state,) = save_run(tmp_path, name)
    images = random_images(name)
    logits = Predictor.load(tmp_path).logits(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(
        logits, direct_logits(model, state, name, images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("classifier", ["cosine", "scaled_linear", "nearest_class_mean"])
def test_every_head_comes_back(tmp_path, classifier):
    model, (state,) = save_run(tmp_path, classifier=classifier)
    images = random_images("small_conv")
    expected = direct_logits(model, state, "small_conv", images)
    np.testing.assert_allclose(Predictor.load(tmp_path).logits(images), expected, atol=1e-5)


def test_precision_is_the_runs(run, tmp_path):
    directory, model, state = run
    (tmp_path / "checkpoints").symlink_to(directory / "checkpoints")
    (tmp_path / "result.json").write_text("{}")
    values = description("small_conv", precision="bfloat16")
    (tmp_path / "model.json").write_text(json.dumps(values))
    images = random_images("small_conv")
    exact = direct_logits(model, state, "small_conv", images)
    logits = Predictor.load(tmp_path).logits(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, exact, atol=0.1)
    assert np.abs(logits - exact).max() > 1e-4


def test_newest_checkpoint_is_read_and_a_damaged_one_passed_over(tmp_path, caplog):
    model, (older, newest) = save_run(tmp_path, num=2)
    images = random_images("small_conv")
    first, last = (direct_logits(model, s, "small_conv", images) for s in (older, newest))
    (tmp_path / "checkpoints" / "damaged-7").mkdir()
    (tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp-0").mkdir()
    np.testing.assert_allclose(Predictor.load(tmp_path).logits(images), last, atol=1e-5)
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "state")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(Predictor.load(tmp_path).logits(images), first, atol=1e-5)
    assert "checkpoint of step 1" in caplog.text
    shutil.rmtree(tmp_path / "checkpoints" / "0" / "state")
    with pytest.raises(
        UsageError, match=f"{tmp_path}/checkpoints must be readable, got 2 that are not"
    ):
        Predictor.load(tmp_path)


def test_checkpoint_of_another_network_is_refused(run, tmp_path):
    (tmp_path / "checkpoints").symlink_to(run[0] / "checkpoints")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "model.json").write_text(
        json.dumps({**description("small_conv", num_classes=4), "class_names": list("abcd")})
    )
    with pytest.raises(UsageError, match="got 1 that are not"):
        Predictor.load(tmp_path)


def test_top_k_are_the_largest_softmax_probabilities(run, tmp_path):
    directory, model, state = run
    images = random_images("small_conv", count=70)
    paths = [write_image(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    logits = direct_logits(model, state, "small_conv", images)
    probabilities = np.asarray(jax.nn.softmax(logits))
    found = Predictor.load(directory).top_k([str(paths[0]), *paths[1:]], k=2)
    assert len(found) == 70
    for predictions, expected in zip(found, probabilities, strict=True):
        order = np.argsort(-expected)[:2]
        assert [p.class_name for p in predictions] == [CLASS_NAMES[c] for c in order]
        np.testing.assert_allclose([p.probability for p in predictions], expected[order], atol=1e-5)
    assert isinstance(found[0][0], Prediction)
    (everything,) = Predictor.load(directory).top_k(paths[:1], k=3)
    assert sum(p.probability for p in everything) == pytest.approx(1)
    # As many as there are, where they are fewer than five.
    assert Predictor.load(directory).top_k(paths[:1]) == [everything]
    assert Predictor.load(directory).top_k([], k=1) == []


def top_probabilities(predictor, path):
    return {p.class_name: p.probability for p in predictor.top_k([path], k=3)[0]}


def test_the_three_lines_of_the_readme(run, tmp_path, capsys):
    directory, _, _ = run
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (lines,) = re.findall(
        r"```python\n(from jaxlt.evaluation import Predictor.*?)```", readme, re.S
    )
    for name in ("cat.png", "dog.jpg"):
        write_image(tmp_path / name, random_images("small_conv", 1)[0])
        lines = lines.replace(name, str(tmp_path / name))
    exec(re.sub(r'load\(".*?"\)', f'load("{directory}")', lines))
    assert len(re.findall("class_name='(?:cat|dog|owl)'", capsys.readouterr().out)) == 6


def test_images_are_converted_and_resized(run, tmp_path):
    """Flat images know but one right answer for each conversion and any size."""
    predictor = Predictor.load(run[0])

    def of_flat_gray(level):
        flat = np.full((8, 8), level, np.uint8)
        return top_probabilities(predictor, write_image(tmp_path / "flat.png", flat))

    dark = of_flat_gray(76)
    assert dark != of_flat_gray(200)
    red = Image.new("RGB", (21, 13), (255, 0, 0))  # luma 0.299 * 255
    for suffix in ("png", "bmp", "gif", "webp"):
        path = tmp_path / f"red.{suffix}"
        red.save(path, **({"lossless": True} if suffix == "webp" else {}))
        assert top_probabilities(predictor, path) == pytest.approx(dark, abs=5e-3)
    deep = Image.fromarray(np.full((20, 20), 76 * 256 + 9, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert top_probabilities(predictor, tmp_path / "deep.png") == pytest.approx(dark, abs=1e-6)


def test_resizing_averages_over_all_pixels(run, tmp_path):
    """A fine checkerboard becomes gray, as antialiasing has it, not black or white."""
    predictor = Predictor.load(run[0])
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    gray = np.full((8, 8), 128, np.uint8)
    assert top_probabilities(predictor, write_image(tmp_path / "board.png", board)) == (
        pytest.approx(
            top_probabilities(predictor, write_image(tmp_path / "gray.png", gray)), abs=5e-3
        )
    )


def test_gray_files_become_rgb_of_the_runs_height_and_width(tmp_path):
    model, (state,) = save_run(tmp_path, "mlp")
    gray = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    logits = direct_logits(model, state, "mlp", np.stack([gray] * 3, axis=-1)[np.newaxis])
    path = write_image(tmp_path / "gray.png", gray)
    found = top_probabilities(Predictor.load(tmp_path), path)
    expected = dict(zip(CLASS_NAMES, np.asarray(jax.nn.softmax(logits[0])).tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-4)


def broken_files(directory):
    (directory / "text.png").write_text("no image")
    whole = write_image(directory / "whole.png", random_images("small_conv")[0])
    (directory / "cut.png").write_bytes(whole.read_bytes()[:-30])
    return [directory / name for name in ("absent.png", "text.png", "cut.png", ".")]


def test_files_that_are_no_images_are_named(run, tmp_path):
    predictor = Predictor.load(run[0])
    for path in broken_files(tmp_path):
        with pytest.raises(UsageError, match=f"image {path} must be a file") as refusal:
            predictor.top_k([tmp_path / "whole.png", path], k=1)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("k", [0, 4])
def test_number_of_classes_asked_for_is_checked(run, k):
    with pytest.raises(UsageError, match=rf"top_k must lie in 1\.\.3, .*, got {k}"):
        Predictor.load(run[0]).top_k([], k=k)


def test_images_of_another_type_or_shape_are_refused(run):
    predictor = Predictor.load(run[0])
    for images in (np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match=r"must be uint8 of shape \(B, 8, 8, 1\)"):
            predictor.logits(images)


def test_directories_that_are_no_finished_run_are_named(tmp_path):
    def refusal():
        with pytest.raises(UsageError) as error:
            Predictor.load(str(tmp_path / "run"))
        assert "\n" not in str(error.value)
        return str(error.value)

    directory = tmp_path / "run"
    assert f"{directory} must hold a readable model.json" in refusal()
    directory.mkdir()
    file = directory / "model.json"
    file.write_text("{")
    assert f"{file} must be JSON" in refusal()
    file.write_text(json.dumps({"model": "mlp"}))
    assert f"{file}: num_classes must be given, got nothing" in refusal()
    file.write_text(json.dumps(description("small_conv")))
    assert "got one without result.json" in refusal()
    (directory / "result.json").write_text("{}")
    assert f"{directory} must have a checkpoint" in refusal()
    (directory / "checkpoints").mkdir()
    assert f"{directory} must have a checkpoint" in refusal()


def test_state_of_other_devices_can_be_read(tmp_path):
    """Saved by a process with four devices, a copy on each."""
    save = """
import pathlib, sys
import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxlt.training import Checkpoints
from test_prediction import create
assert jax.device_count() == 4
everywhere = NamedSharding(jax.make_mesh((4,), ("device",)), PartitionSpec())
state = jax.device_put(create("small_conv")[1](0), everywhere)
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(state, {}, None)
checkpoints.close()
"""
    (tmp_path / "model.json").write_text(json.dumps(description("small_conv")))
    (tmp_path / "result.json").write_text("{}")
    finished = subprocess.run(
        [sys.executable, "-c", save, str(tmp_path / "checkpoints")],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            "JAX_NUM_CPU_DEVICES": "4",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    model, state_fn = create("small_conv")
    images = random_images("small_conv")
    np.testing.assert_allclose(
        Predictor.load(tmp_path).logits(images),
        direct_logits(model, state_fn(0), "small_conv", images),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["small_conv", "resnet8"])
def test_features_are_what_the_classifier_sees(tmp_path, name):
    _, (state,) = save_run(tmp_path, name)
    predictor, images = Predictor.load(tmp_path), random_images(name)
    classifier = state.params["classifier"]
    logits = predictor.features(images) @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(logits, predictor.logits(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        predictor.features(images.astype(np.float32))


def test_arrays_are_fitted_as_files_are(run, tmp_path):
    predictor = Predictor.load(run[0])
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        images = rng.integers(0, 256, (3, 17, 9, channels), dtype=np.uint8)
        files = [write_image(tmp_path / f"{channels}-{n}.png", i) for n, i in enumerate(images)]
        np.testing.assert_array_equal(predictor.fit(images), predictor.read_files(files))
    own = random_images("small_conv")
    assert predictor.fit(own) is own
    with pytest.raises(UsageError, match="must have 1 or 3 channels, got 4"):
        predictor.fit(np.zeros((1, 9, 9, 4), np.uint8))
