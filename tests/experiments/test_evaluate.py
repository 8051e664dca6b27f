"""The program that evaluates a run on any labeled images."""

import csv
import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from small_runs import run_program, train

from experiments import evaluate
from jaxlt import recipes
from jaxlt.data import load_source
from jaxlt.evaluation import Predictor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def digits():
    """40 test images of the digits with their labels."""
    images = load_source("digits").test
    return images.load(np.arange(40))[..., 0], images.labels[:40]


def write_folder(root, digits, name_of):
    """Class directories; returns the images by label."""
    by_label = {}
    for number, (pixels, label) in enumerate(zip(*digits, strict=True)):
        directory = root / name_of(label)
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(directory / f"{number}.png")
        by_label.setdefault(int(label), []).append(pixels)
    return by_label


def shares(run, by_label):
    """Percent correct of each class, by the network's own logits."""
    predictor = Predictor.load(run)
    found = {}
    for label, pixels in by_label.items():
        guesses = predictor.logits(np.stack(pixels)[..., np.newaxis]).argmax(axis=1)
        found[str(label)] = f"{100 * np.mean(guesses == label):.1f}"
    return found


def table(lines):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]


def test_its_own_images_give_the_numbers_of_its_result(monkeypatch, capsys, run):
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, run)
    assert status == 0, errors
    result = json.loads((run / "result.json").read_text())
    *_, whole = table(lines)
    percents = [result[name] for name in ("many", "medium", "few", "accuracy")]
    percents += [result["balanced_accuracy"], result["ece"]]
    expected = ["-" if value is None else f"{100 * value:.1f}" for value in percents]
    assert whole == ["596", *expected, f"{result['test_loss']:.3f}"]
    assert errors[-3:][0] == "next:"


def test_a_folder_is_evaluated_class_by_class(monkeypatch, capsys, tmp_path, run, digits):
    by_label = write_folder(tmp_path / "photos", digits, str)
    flags = (run, "--dataset", tmp_path / "photos", "--csv", tmp_path / "a.csv")
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert status == 0, errors
    assert f"evaluated on 40 train images of folder:{tmp_path / 'photos'}" in errors
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:5] == ["class", "group", "trained on", "images", "correct (%)"]
    assert {row[0]: row[4] for row in rows} == shares(run, by_label)
    assert [int(row[3]) for row in rows] == [len(by_label[int(row[0])]) for row in rows]
    counts = json.loads((run / "split.json").read_text())["class_counts"]
    assert [int(row[2]) for row in rows] == sorted(counts, reverse=True)
    assert [row[:5] for row in table(lines)[2:12]] == [row[:5] for row in rows]


def test_classes_go_by_name_and_unknown_ones_are_counted_and_refused_or_left_out(
    monkeypatch, capsys, tmp_path, run, digits
):
    names = {0: "zebra", 1: "ant"}
    by_label = write_folder(tmp_path, digits, lambda label: names.get(int(label), str(label)))
    unknown = len(by_label.pop(0)) + len(by_label.pop(1))
    flags = (run, "--dataset", f"folder:{tmp_path}")
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert (status, lines) == (2, [])
    said = f"{unknown} images of 2 classes (ant, zebra) that it does not know"
    assert f"got {said}; --skip-unknown leaves them out" in errors[-1]
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, *flags, "--skip-unknown")
    assert status == 0
    assert f"left out: {said.replace('it does', 'the run does')}" in errors
    assert {row[0]: row[4] for row in table(lines)[2:10]} == shares(run, by_label)


def test_a_name_is_the_same_in_either_form_of_unicode(monkeypatch, capsys, tmp_path, run, digits):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.name != "model.json":
            (copy / path.name).symlink_to(path)
    values = json.loads((run / "model.json").read_text())
    names = [f"café {label}" for label in range(10)]
    values["class_names"] = [unicodedata.normalize("NFC", name) for name in names]
    (copy / "model.json").write_text(json.dumps(values))
    write_folder(
        tmp_path / "data", digits, lambda label: unicodedata.normalize("NFD", names[label])
    )
    flags = (copy, "--dataset", f"folder:{tmp_path / 'data'}")
    status, _, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert status == 0, errors


def test_a_run_that_has_not_ended_is_evaluated_too(monkeypatch, capsys, tmp_path, run):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.name != "result.json":
            (copy / path.name).symlink_to(path)
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, copy)
    assert status == 0, errors
    assert errors[0].startswith(f"run {copy} has not ended")
    assert table(lines)[-1][0] == "596"


def write_photos(root, counts, first=0):
    """`root/PART/CLASS/N.png`, no two images alike; `counts` of each class by part."""
    for part, count in counts.items():
        for number, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for image in range(first, first + count):
                color = (90 * number, 9 * image, 50 * len(part))
                Image.new("RGB", (8, 8), color).save(root / part / name / f"{image}.png")
    return root


def train_on(root, run, **data):
    """A run on a folder."""
    folder = recipes.Folder(directory=str(root))
    data = recipes.Data(source=folder, profile=recipes.Native(), **data)
    small = recipes.Small(architecture="mlp")
    return recipes.train(recipes.Recipe(data=data, network=small).shortened(1), run).path


TOLD = "the run was trained on {} of them, which it knows better than others"


def test_images_that_the_run_was_trained_on_are_told(monkeypatch, capsys, tmp_path):
    """By their contents, wherever they lie: a folder that has moved, or a copy for tests."""
    run = train_on(write_photos(tmp_path / "photos", {"train": 4, "test": 1}), tmp_path / "run")
    (tmp_path / "photos").rename(tmp_path / "now")
    write_photos(tmp_path / "like", {"train": 4}, first=9)
    shutil.copytree(tmp_path / "like", tmp_path / "copied")
    shutil.copytree(tmp_path / "now" / "train", tmp_path / "copied" / "test")
    cases = [("now", "train", 8), ("now", "test", 0), ("like", "train", 0), ("copied", "test", 8)]
    for place, part, count in cases:
        flags = (run, "--dataset", f"folder:{tmp_path / place}", "--part", part)
        status, _, errors = run_program(monkeypatch, capsys, evaluate, *flags)
        assert status == 0, errors
        told = [line for line in errors if line.startswith("the run was trained")]
        assert told == [TOLD.format(count)] * bool(count), (place, part)


@pytest.mark.parametrize("relabel", ["none", "by_size"])
def test_its_own_data_elsewhere_give_the_numbers_of_its_result(
    monkeypatch, capsys, tmp_path, relabel
):
    photos = write_photos(tmp_path / "photos", {"train": 10})
    (photos / "train" / "a" / "0.png").unlink()
    run = train_on(photos, tmp_path / "run", validation=0.2, relabel=relabel)
    photos.rename(tmp_path / "now")
    place = f"folder:{tmp_path / 'now'}"
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, run, "--dataset", place)
    assert status == 0, errors
    count = json.loads((run / "recipe.json").read_text())["data"]["evaluated"]["images"]
    said = f"evaluated on {count} images of {place}, those that the run was evaluated on"
    assert said in errors
    assert not any(line.startswith("the run was trained") for line in errors)
    *_, whole = table(lines)
    result = json.loads((run / "result.json").read_text())
    assert (whole[0], whole[-1]) == (str(count), f"{result['test_loss']:.3f}")
    flags = (run, "--dataset", place, "--part", "train")
    status, _, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert f"evaluated on 19 train images of {place}" in errors
    assert TOLD.format(19 - count) in errors
    # One image is another: these are other data.
    Image.new("RGB", (8, 8)).save(tmp_path / "now" / "train" / "a" / "5.png")
    status, _, errors = run_program(monkeypatch, capsys, evaluate, run, "--dataset", place)
    assert f"evaluated on 19 train images of {place}" in errors
    assert not any(line.startswith("the run was trained") for line in errors)


def test_the_nearest_class_of_the_run_is_named(monkeypatch, capsys, tmp_path):
    run = train_on(write_photos(tmp_path / "photos", {"train": 2, "test": 1}), tmp_path / "run")
    values = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**values, "class_names": ["cat", "dog"]}))
    write_photos(tmp_path / "others", {"test": 1, "train": 1})
    for part in ("test", "train"):
        for old, new in (("a", "Cat"), ("b", "dog")):
            (tmp_path / "others" / part / old).rename(tmp_path / "others" / part / new)
    flags = (run, "--dataset", tmp_path / "others")
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert (status, lines) == (2, [])
    said = "got 1 image of 1 class (Cat) that it does not know; the nearest to Cat is cat; --skip"
    assert said in errors[-1]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "RUN must be a run's directory, got nothing"),
        (["{run}", "--skip-unknown"], "skip_unknown must go with dataset, got it alone"),
        (["{run}", "--dataset", "digits", "--part", "val"], "must have val images, got test and"),
        (["{run}", "--dataset", "folder:/nowhere"], "/nowhere"),
        (["{run}", "--csv", "/nowhere/a.csv"], "csv must be a file in a writable directory"),
        (["{run}", "--csv", "{run}/a.png"], "csv must be a file of its own, got the"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, run, flags, named):
    (run / "a.png").touch()
    flags = [flag.format(run=run) for flag in flags]
    status, lines, errors = run_program(monkeypatch, capsys, evaluate, *flags)
    assert (status, lines, len(errors)) == (2, [], 1), errors
    assert named in errors[0]
