"""The program that classifies image files, from its flags to its lines."""

import csv
import dataclasses
import json
import os

import jax
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


@pytest.fixture
def photos(tmp_path):
    """Seven images in a tree with names of all kinds, and their pixels by path."""
    names = ["a b.png", 'é,\n\r".png', "deep/er/c.PNG", "deep/d.png", "[1].png", "notes.txt.png"]
    names = [*map(os.fsencode, names), b"\xff.png"]
    pixels = {}
    for seed, name in enumerate(names):
        path = tmp_path / "photos" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels[str(path)] = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels[str(path)]).save(path, "png")
    return tmp_path / "photos", pixels


def softmax_by_hand(directory, pixels):
    """Class names with probabilities, the likeliest first."""
    logits = Predictor.load(directory).logits(pixels.reshape(1, *SHAPE))[0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    order = sorted(range(3), key=lambda label: -probabilities[label])
    return [(DESCRIPTION["class_names"][label], probabilities[label]) for label in order]


def test_a_directory_goes_to_csv_and_jsonl(monkeypatch, capsys, tmp_path, directory, photos):
    root, pixels = photos
    flags = (directory, root, "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl")
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert (status, lines) == (0, []), errors
    assert errors[0] == f"7 images written to {tmp_path / 'a.csv'}"
    with (tmp_path / "a.csv").open(newline="", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == [
        "path",
        *(f"{what}_{n}" for n in (1, 2, 3) for what in ("class", "probability")),
    ]
    objects = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row[0] for row in rows] == [one["path"] for one in objects] == sorted(pixels)
    for row, one in zip(rows, objects, strict=True):
        expected = softmax_by_hand(directory, pixels[row[0]])
        assert row[1::2] == [p["class"] for p in one["predictions"]] == [n for n, _ in expected]
        found = [float(word) for word in row[2::2]], [p["probability"] for p in one["predictions"]]
        np.testing.assert_allclose(found, [[p for _, p in expected]] * 2, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "photos"]


def test_standard_output_and_patterns(monkeypatch, capsys, directory, photos):
    root, pixels = photos
    # Bytes that pytest's capture does not take.
    (root / os.fsdecode(b"\xff.png")).unlink()
    flags = (directory, f"{root}/**/*.png", f"{root}/[1].png", "--csv", "-", "--top-k", "1")
    status, lines, _ = run_program(monkeypatch, capsys, predict, *flags)
    assert status == 0
    # The pattern of brackets is also the name of a file, which is what it then means.
    assert lines[-1].split(",")[0] == f'"{root}/[1].png"'
    printed = "\n".join(lines)
    assert printed.count(str(root)) == len([name for name in pixels if name.endswith(".png")])


def test_images_that_cannot_be_read_stop_it_or_are_named(
    monkeypatch, capsys, tmp_path, directory, photos
):
    root, pixels = photos
    (root / "bad.png").write_bytes(b"no image")
    (root / "empty.jpg").write_bytes(b"")
    (tmp_path / "a.csv").write_text("old")
    flags = (directory, root, "--csv", tmp_path / "a.csv")
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert (status, lines, len(errors)) == (2, [], 1)
    assert "images must be readable, got 2 of 9 that are not" in errors[0]
    assert "bad.png" in errors[0]
    assert "empty.jpg" in errors[0]
    assert errors[0].endswith("; --skip-unreadable leaves them out")
    assert (tmp_path / "a.csv").read_text() == "old"
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags, "--skip-unreadable")
    assert (status, lines) == (0, [])
    assert [line.startswith("skipped: image ") for line in errors[:2]] == [True, True]
    assert errors[2:4] == ["skipped 2 of 9 images", f"7 images written to {tmp_path / 'a.csv'}"]
    with (tmp_path / "a.csv").open(newline="", errors="surrogateescape") as file:
        assert [row[0] for row in csv.reader(file)][1:] == sorted(pixels)
    flags = (directory, root / "bad.png", "--skip-unreadable")
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert (status, lines) == (2, [])
    assert "bad.png" in errors[-1]


def test_a_pipe_is_no_image(monkeypatch, capsys, tmp_path, directory):
    """Nothing may ever be written to it."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    flags = (directory, pipe, directory / "a.png", "--top-k", "1")
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert (status, lines, len(errors)) == (2, [], 1)
    said = f"image {pipe} must be a file that can be decoded: it is no regular file"
    assert said in errors[0]
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags, "--skip-unreadable")
    assert (status, len(lines), errors[0]) == (0, 2, f"skipped: {said}")


def test_many_images_pass_in_batches(monkeypatch, capsys, directory):
    flags = (directory, *[directory / "a.png", directory / "b.png"] * 70, "--top-k", "1")
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert status == 0
    assert lines == lines[:4] * 70
    assert errors[0].startswith("predict: image 140/140, ")


def test_the_best_checkpoint_of_a_run_that_goes_on(monkeypatch, capsys, tmp_path, directory):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.json").write_text(json.dumps(DESCRIPTION))
    state_fn = make_state_fn(create_model("mlp", 3, image_shape=SHAPE), optax.sgd(0.1), SHAPE)
    checkpoints = Checkpoints(run / "checkpoints", keep=3)
    with (run / "metrics.jsonl").open("w") as metrics:
        for step, balanced in ((5, 0.4), (10, 0.75), (15, None), (20, 0.5)):
            state = dataclasses.replace(state_fn(step), step=jax.numpy.asarray(step))
            checkpoints.save(state, {}, {"balanced_accuracy": balanced} if balanced else None)
            metrics.write(json.dumps({"step": step, "balanced_accuracy": balanced}) + "\n")
    checkpoints.close()
    image = directory / "a.png"

    def predicted(*flags):
        found = run_program(monkeypatch, capsys, predict, run, image, *flags)
        assert found[0] == 0, found
        return found[1:]

    newest, errors = predicted()
    assert errors[0] == f"run {run} has not ended: the network is that after step 20"
    assert newest == predicted("--checkpoint", "20")[0]
    best, errors = predicted("--best")
    assert errors[0] == (
        "step 10 has the best balanced accuracy of the checkpoints kept, 0.7500 on the images that "
        "the run was evaluated on"
    )
    assert errors[1] == f"run {run} has not ended: the network is that after step 10"
    assert best == predicted("--checkpoint", "10")[0] != newest
    (run / "result.json").write_text("{}")
    assert predicted("--best")[0] == best
    assert predicted()[1][0] == "next:"


def test_prints_each_image_with_its_likeliest_classes(monkeypatch, capsys, directory):
    images = [directory / "a.png", directory / "b.png"]
    flags = ("--checkpoint", directory, "--top-k", "2", *images)
    status, lines, errors = run_program(monkeypatch, capsys, predict, *flags)
    assert status == 0
    commands = [
        f"  python3 -m experiments.evaluate {directory} --dataset SOURCE",
        f"  python3 -m experiments.export {directory}",
    ]
    assert errors == ["next:", *commands]
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
        ([], "RUN must be a run's directory, got nothing; give it before all flags"),
        (["a.png"], "IMAGE must be an image file, a directory or several, got none"),
        (["--checkpoint", "{run}"], "IMAGE must be an image file, a directory or several, got"),
        (["{run}"], "IMAGE must be an image file, a directory or several, got none"),
        (["--checkpoint", "0"], "RUN must be a run's directory, got nothing"),
        (["{run}", "{run}/a.png", "--checkpoint", "7"], "step must be that of a checkpoint"),
        (["{run}/checkpoints/0", "{run}/a.png", "--best"], "give its step once, or --best alone"),
        (["{run}", "{run}/a.png", "--best"], "evaluated for --best, got none; leave it out"),
        (["{run}", "{run}/z*.png"], "IMAGE must be a pattern that files match"),
        (["{run}", "{run}/z.png"], "IMAGE must be a file, a directory or a pattern"),
        (["{run}", ""], "IMAGE must be a file, a directory or a pattern, got ''"),
        (["{run}", "{run}/a.png", "--csv", "{run}"], "csv must be a file, got"),
        (["{run}", "{run}/a.png", "--csv", "{run}/no/a.csv"], "csv must be a file in a writable"),
        (["{run}", "{run}/a.png", "--csv", "a", "--jsonl", "./a"], "must be different files, got"),
        (
            ["{run}", "{run}/*.png", "--csv", "{run}/b.png"],
            "csv must be a file of its own, got the image",
        ),
        (["--checkpoint", "{run}/checkpoints/best", "a.png"], "must be named by its step"),
        (["--checkpoint", "{run}/checkpoints/7", "a.png"], "step must be that of a checkpoint"),
        (["--checkpoint", "{run}", "{run}/c.png", "--top-k", "1"], "c.png"),
        (["{run}", "{run}/a.png", "--top-k", "4"], "top_k must lie in 1..3, the classes, got 4"),
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
