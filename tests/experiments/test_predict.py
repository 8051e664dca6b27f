"""The program that classifies image files, from its flags to its lines."""

import json

import numpy as np
import optax
import pytest
from PIL import Image
from small_runs import run_program

from experiments import predict
from jaxlt.evaluation import Predictor
from jaxlt.models import create_model
from jaxlt.training import Checkpoints, make_state_fn

SHAPE = (8, 8, 1)
DESCRIPTION = {
    "model": "mlp",
    "num_classes": 3,
    "classifier": "linear",
    "precision": "float32",
    "image_shape": SHAPE,
    "mean": [0.5],
    "std": [0.25],
    "class_names": ["cat", "barn owl", "dog"],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run's directory and two images."""
    path = tmp_path_factory.mktemp("run")
    (path / "model.json").write_text(json.dumps(DESCRIPTION))
    (path / "result.json").write_text("{}")
    state_fn = make_state_fn(create_model("mlp", 3, image_shape=SHAPE), optax.sgd(0.1), SHAPE)
    checkpoints = Checkpoints(path / "checkpoints")
    checkpoints.save(state_fn(0), {}, None)
    checkpoints.close()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(path / name)
    return path


def test_prints_each_image_with_its_likeliest_classes(monkeypatch, capsys, directory):
    images = [directory / "a.png", directory / "b.png"]
    flags = ("--checkpoint", directory, "--top-k", "2", *images)
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert status == 0
    assert errors == ["next:", f"  python3 -m experiments.report {directory}"]
    expected = []
    for path, predictions in zip(images, Predictor.load(directory).top_k(images, k=2), strict=True):
        expected.append(str(path))
        for name, probability in predictions:
            expected.append(f"{100 * probability:.2f}".rjust(7) + f" %  {name}")
    assert lines == expected
    assert len(lines) == 6
    step = directory / "checkpoints" / "0"
    flags = ("--checkpoint", step, *flags[2:])
    assert run_program(monkeypatch, capsys, predict, *flags) == (0, lines, errors)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--checkpoint", "/nowhere", "a.png"], "/nowhere"),
        (["a.png"], "--checkpoint must be a finished run, got nothing; give its directory, --ch"),
        (["--checkpoint", "{run}"], "IMAGE must be one image file or several, got none; give them"),
        (["--checkpoint", "{run}/checkpoints/best", "a.png"], "must be named by its step"),
        (["--checkpoint", "{run}/checkpoints/7", "a.png"], "step must be that of a checkpoint"),
        (["--checkpoint", "{run}", "{run}/c.png", "--top-k", "1"], "c.png"),
        (["--checkpoint", "{run}", "{run}/a.png"], "top_k must lie in 1..3, the classes, got 5"),
        (["--checkpoint", "{run}", "{run}/a.png", "--top-k", "0"], "top_k must lie in 1..3"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, directory, flags, named):
    flags = [flag.format(run=directory) for flag in flags]
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert (status, lines) == (2, [])
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert named in errors[0]
