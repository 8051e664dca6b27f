"""Open-set evaluation of finished runs, from the flags to the files."""

import json
import shutil

import numpy as np
import pytest
from matplotlib import image
from PIL import Image
from small_runs import files_of, run_program, train

from experiments import open_lt
from experiments.loaded_runs import load_runs
from jaxlt.data import Split, load_source
from jaxlt.evaluation import Predictor


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    return [
        train(directory / "sgd", epochs=3),
        train(directory / "sam", "--method", "sam", "--method.rho", "0.05", epochs=1),
    ]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Color photographs of nothing in particular, larger than the digits."""
    directory = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for part, count in (("train", 1), ("test", 12)):
        for name in ("blobs", "stripes"):
            (directory / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (11, 13, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(directory / part / name / f"{number}.png")
    return f"folder:{directory}"


def brute_force(run, opened, threshold):
    """Every measure of the softmax threshold, image by image."""
    predictor = Predictor.load(run)
    closed, other = load_source("digits").test, load_source(opened, image_size=8).test
    counts = {"right": 0, "wrong": 0, "rejected": 0, "accepted_open": 0, "rejected_open": 0}
    logits = predictor.logits(closed.load(np.arange(len(closed.labels))))
    for row, label in zip(logits, closed.labels, strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        rejected = p.max() < threshold
        right = not rejected and p.argmax() == label
        counts["rejected" if rejected else "right" if right else "wrong"] += 1
    colors = other.load(np.arange(len(other.labels)))
    gray = [np.asarray(Image.fromarray(pixels).convert("L")) for pixels in colors]
    for row in predictor.logits(np.stack(gray)[..., np.newaxis]):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        counts["rejected_open" if p.max() < threshold else "accepted_open"] += 1
    return counts


def test_measures_are_those_of_brute_force(monkeypatch, capsys, runs, opened):
    threshold = 0.4
    flags = ("--checkpoint", *runs, "--open", opened, "--threshold", threshold)
    status, lines, errors = run_program(monkeypatch, capsys, open_lt, *flags)
    assert status == 0
    shown = " ".join(map(str, runs))
    assert errors[-3:] == [
        "next:",
        f"  python3 -m experiments.ood --generate --checkpoint {shown}",
        f"  python3 -m experiments.report {shown}",
    ]
    for run in runs:
        counts = brute_force(run, opened, threshold)
        saved = json.loads((run / "open_set" / "open_set.json").read_text())
        measures = saved["runs"][run.name]
        closed = counts["right"] + counts["wrong"] + counts["rejected"]
        assert (measures["closed_images"], measures["open_images"]) == (closed, 24)
        assert measures["accuracy"] == pytest.approx(counts["right"] / closed)
        assert measures["rejected"] == pytest.approx(counts["rejected"] / closed)
        assert measures["open_accuracy"] == pytest.approx(counts["rejected_open"] / 24)
        precision = counts["right"] / closed
        recall = counts["right"] / (counts["right"] + counts["accepted_open"])
        f = 2 * precision * recall / (precision + recall)
        assert measures["f_oltr"] == pytest.approx(f)
        precision = counts["right"] / (counts["right"] + counts["wrong"])
        assert measures["f_balms"] == pytest.approx(2 * precision * recall / (precision + recall))
        row = next(line for line in lines if line.startswith(f"| {run.name}"))
        assert f"{f:.3f}" in row
        assert f"{100 * counts['right'] / closed:.2f}" in row
        # digits with factor 10: classes of 119 to 11 images; the recipe's groups apply.
        assert measures["few"] is not None
        assert len(measures["per_class"]) == 10
        assert image.imread(run / "open_set" / "open_set.png").std() > 0


def test_prototype_threshold_accepts_95_percent_of_the_training_images(
    monkeypatch, capsys, runs, opened, tmp_path
):
    flags = ("--checkpoint", *runs, "--open", opened, "--metric", "prototype")
    status, lines, _ = run_program(monkeypatch, capsys, open_lt, *flags, "--output", tmp_path)
    assert status == 0
    assert len([line for line in lines if line.startswith("| s")]) == 2
    saved = json.loads((tmp_path / "open_set.json").read_text())
    assert (saved["metric"], list(saved["runs"])) == ("prototype", ["sgd", "sam"])
    source = load_source("digits")
    predictor = Predictor.load(runs[0])
    split = Split.read(runs[0] / "split.json", source)
    features = predictor.features(source.train.load(split.indices)).astype(np.float64)
    units = features - features.mean(axis=0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    labels = source.train.labels[split.indices]
    prototypes = np.stack([units[labels == c].mean(axis=0) for c in range(10)])
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    scores = (units @ prototypes.T).max(axis=1)
    threshold = saved["runs"]["sgd"]["threshold"]
    assert np.mean(scores >= threshold - 1e-6) >= 0.95
    assert np.mean(scores > threshold + 1e-6) < 0.95
    # The network's own classifier names the class: without rejection it is the closed accuracy.
    result = json.loads((runs[0] / "result.json").read_text())
    assert saved["runs"]["sgd"]["curve"]["accuracy"][0] == pytest.approx(result["accuracy"])


def test_a_threshold_that_rejects_nothing_is_said_so(monkeypatch, capsys, runs, opened, tmp_path):
    flags = ("--checkpoint", runs[0], "--open", opened, "--output", tmp_path / "new" / "deep")
    status, _, errors = run_program(monkeypatch, capsys, open_lt, *flags)
    assert status == 0
    assert any("below the threshold 0.1, so nothing is rejected" in line for line in errors)
    assert (tmp_path / "new" / "deep" / "table.md").exists()


def test_labels_are_what_the_paths_differ_in(runs):
    assert [run.label for run in load_runs(runs)] == ["sgd", "sam"]
    assert [run.label for run in load_runs(runs[:1])] == ["sgd"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--checkpoint", "{run}", "--open", "digits"], "open must be another source"),
        (["--checkpoint", "{run}", "--open", "digit"], "got 'digit'"),
        (["--checkpoint", "{run}", "--open", "folder:/nowhere"], "/nowhere"),
        (["--checkpoint", "{run}", "--open", "{bad}"], "0.png"),
        (["--checkpoint", "/nowhere", "--open", "{open}"], "/nowhere"),
        (["--checkpoint", "{unfinished}", "--open", "{open}"], "must be finished"),
        (["--checkpoint", "{run}", "{run}", "--open", "{open}"], "checkpoints must be different"),
        (["--checkpoint", "{run}", "--open", "{open}", "--metric", "cosine"], "--metric"),
        (["--checkpoint", "{run}", "--open", "{open}", "--output", "{run}/split.json/x"], "output"),
        (["--checkpoint", "{garbled}", "--open", "{open}"], "split.json must be JSON"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, tmp_path, runs, opened, flags, named):
    for name, file in (("unfinished", "result.json"), ("garbled", "split.json")):
        shutil.copytree(runs[0], tmp_path / name, ignore=shutil.ignore_patterns("open_set"))
        (tmp_path / name / file).unlink()
    (tmp_path / "garbled" / "split.json").write_text("{")
    shutil.copytree(opened.removeprefix("folder:"), tmp_path / "bad")
    (tmp_path / "bad" / "test" / "blobs" / "0.png").write_bytes(b"no image")
    before = files_of(tmp_path, *runs)
    values = {"run": runs[0], "open": opened, "bad": f"folder:{tmp_path / 'bad'}"}
    values |= {name: tmp_path / name for name in ("unfinished", "garbled")}
    status, lines, errors = run_program(
        monkeypatch, capsys, open_lt, *(flag.format(**values) for flag in flags)
    )
    assert (status, lines) == (2, [])
    assert len(errors) == 1, errors
    assert named in errors[0]
    assert files_of(tmp_path, *runs) == before
