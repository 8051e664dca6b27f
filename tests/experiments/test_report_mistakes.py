"""Confusion matrices and surest mistakes in a report, by the run's own network."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix
from small_runs import run_program, train
from test_report import Page

from experiments.report import __main__ as report
from experiments.report.mistakes import (
    Predicted,
    commonest,
    draw_matrix,
    folded,
    groups_of,
    mistakes,
    predicted,
    surest_mistakes,
    thumbnail,
)
from experiments.report.rows import LearnedClasses, read_runs, rows_of
from jaxlt.recipes.recorded import TrainedRun


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained") / "sgd")


@pytest.fixture
def program(monkeypatch, capfd):
    return lambda *flags: run_program(monkeypatch, capfd, report, *flags)


class TestFolding:
    def test_few_classes_stand_from_head_to_tail(self):
        assert [group.tolist() for group in groups_of((5, 9, 5, 20))] == [[3], [1], [0], [2]]

    def test_many_classes_are_grouped_with_neighbors_by_size(self):
        groups = groups_of(range(1, 101))
        assert [len(group) for group in groups] == [5] * 20
        assert groups[0].tolist() == [99, 98, 97, 96, 95]
        assert sorted(np.concatenate(groups)) == list(range(100))

    def test_of_classes_is_scikit_learn_s_matrix(self):
        labels, classes = np.random.default_rng(0).integers(4, size=(2, 200))
        order = [2, 0, 3, 1]
        wanted = confusion_matrix(labels, classes, labels=order, normalize="true")
        np.testing.assert_allclose(folded(labels, classes, [np.array([c]) for c in order]), wanted)

    def test_of_groups_counts_each_class_alike(self):
        # Class 0 has three images, of which one is right and one taken for its neighbor 1.
        labels, classes = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 2, 2, 2, 0])
        found = folded(labels, classes, [np.array([0, 1]), np.array([2])])
        np.testing.assert_allclose(found, [[1 / 3, 2 / 3], [1 / 2, 1 / 2]])

    def test_of_a_class_without_images_is_unknown(self):
        found = folded(np.array([0]), np.array([1]), [np.array([0]), np.array([1])])
        np.testing.assert_array_equal(found, [[0, 1], [np.nan, np.nan]])


def test_surest_mistakes_come_first():
    labels, classes = np.array([0, 1, 2, 0, 1]), np.array([0, 0, 0, 1, 0])
    confidences = np.array([0.99, 0.5, 0.9, 0.5, 0.6])
    images: object = None
    found = Predicted(images, np.arange(5), labels, classes, confidences)
    assert surest_mistakes(found).tolist() == [2, 4, 1, 3]
    assert surest_mistakes(found, 1).tolist() == [2]


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((8, 8, 1), "png", (8, 8)),
        ((300, 200, 3), "jpeg", (64, 96)),
        ((96, 96, 1), "jpeg", (96, 96)),
        ((8, 8, 2), "png", (8, 8)),
    ],
)
def test_thumbnails_are_small(shape, kind, size):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    head, contents = thumbnail(pixels).split(",")
    assert head == f"data:image/{kind};base64"
    with Image.open(io.BytesIO(base64.b64decode(contents))) as image:
        assert image.size == size
        if kind == "png":
            np.testing.assert_array_equal(np.asarray(image), pixels[..., 0])


def test_predictions_are_those_the_run_recorded(trained):
    run = TrainedRun(trained)
    found = predicted(run)
    counts = confusion_matrix(found.labels, found.classes)
    result = run.files.result
    # More images than a chunk, which is not a divisor of their number.
    assert len(found.labels) > 128
    assert found.accuracy == pytest.approx(result.accuracy, abs=1e-9)
    np.testing.assert_allclose(np.diag(counts) / counts.sum(axis=1), result.per_class, atol=1e-6)
    # Mean confidence and accuracy by the bins of the record.
    confidence = sum(result.confidence_bins.confidence_sums) / len(found.labels)
    assert found.confidences.mean() == pytest.approx(confidence, abs=1e-5)


def test_page_shows_them(trained, program):
    assert program(trained)[0] == 0
    page = Page((trained / "report.html").read_text())
    run = TrainedRun(trained)
    images, _ = run.tested
    logits = run.predictor().logits(images.load(np.arange(len(images.labels))))
    wrong = int((logits.argmax(axis=1) != images.labels).sum())
    assert (
        f"Of {len(images.labels):,} images {wrong:,} are mistaken by the run of seed 0" in page.text
    )
    alternatives = [one["alt"] for one in page.of("img")]
    assert len([one for one in alternatives if one.startswith("number ")]) == min(24, wrong)
    [matrix] = [one for one in alternatives if one.startswith("Confusion matrix of")]
    assert "Most often mistaken: " in matrix
    taken = [text for _, text in page.texts if text.startswith("taken for ")]
    sureness = [int(text.split()[-2]) for text in taken if text.endswith("%")]
    assert sureness == sorted(sureness, reverse=True)


def test_images_can_be_left_out(trained, program, tmp_path):
    output = tmp_path / "page.html"
    assert program(trained, "--output", output, "--no-gallery")[0] == 0
    page = Page(output.read_text())
    assert not page.of("ul")
    assert "Confusion matrix" in page.text
    status, _, log = program(trained, "--output", output, "--no-predictions")
    assert status == 0
    assert not any("classifying" in line for line in log)
    assert "Mistakes" not in Page(output.read_text()).text


def test_what_is_gone_is_said_in_a_line(trained, tmp_path, caplog):
    path = tmp_path / "copy"
    shutil.copytree(trained, path)
    shutil.rmtree(path / "checkpoints")
    section = mistakes(rows_of(read_runs([path]), tmp_path))
    text = f"Mistakes of copy are not shown: run {path} has no checkpoint."
    assert section.subsections[0].paragraphs == [text]
    assert caplog.messages == [text]


def test_images_are_read_where_they_are_now(trained, program, tmp_path):
    output = tmp_path / "page.html"
    assert program(trained, "--output", output, "--dataset", "digits")[0] == 0
    assert "Surest mistakes" in Page(output.read_text()).text
    gone = f"folder:{tmp_path / 'gone'}"
    status, _, log = program(trained, "--output", output, "--dataset", gone)
    assert status == 0
    assert log[0].startswith("Mistakes of SGD are not shown: ")
    assert "gone" in log[0]
    assert "Confusion matrix" not in Page(output.read_text()).text


def test_other_images_are_told_from_those_of_the_run(trained, tmp_path, monkeypatch):
    path = tmp_path / "copy"
    shutil.copytree(trained, path)
    digits = TrainedRun(path).recorded.data.load().test
    monkeypatch.setattr(
        type(digits), "load", lambda self, indices: np.zeros((len(indices), 8, 8, 1), np.uint8)
    )
    section = mistakes(rows_of(read_runs([path]), tmp_path))
    [said] = section.subsections[0].paragraphs
    assert f"dataset must be that of run {path}, got others" in said
    assert said.endswith("give where its data are now by --dataset SOURCE.")


def test_commonest_confusions_are_named():
    labels, classes = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 0, 0, 2, 2])
    images: object = None
    found = Predicted(images, np.arange(6), labels, classes, np.ones(6))
    learned = LearnedClasses("set", ("red fox", "dog", "cat"), (9, 5, 2), (8, 8, 1))
    words = commonest(found, learned)
    assert words == "Most often mistaken: red fox for dog (2 of 3), dog for red fox (1 of 1)"
    right = found._replace(classes=labels)
    assert commonest(right, learned) == "Nothing is mistaken"
    assert draw_matrix("SGD", found, learned).broad_uri is None
    assert draw_matrix("SGD", found, learned, alone=True).broad_uri is not None
