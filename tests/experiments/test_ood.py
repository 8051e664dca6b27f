"""Evaluation of finished runs on shifted images, from the flags to the files."""

import functools
import json
import shutil

import numpy as np
import pytest
from matplotlib import image
from PIL import Image
from small_runs import files_of, run_program, train

from experiments.ood import __main__ as ood
from jaxlt.data import load_source
from jaxlt.evaluation import Predictor
from jaxlt.evaluation.corruptions import SEVERITIES, Corruption

GENERATED = ("gaussian_noise", "contrast")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    return [train(directory / "long", epochs=4), train(directory / "short", epochs=1)]


@pytest.fixture(scope="module")
def digits():
    test = load_source("digits").test
    return test.load(np.arange(len(test.labels))), test.labels


def write_classes(directory, images, labels):
    for label in np.unique(labels):
        (directory / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(labels == label):
            file = directory / str(label) / f"{number:04d}.png"
            Image.fromarray(images[number][..., 0]).save(file)
    return directory


# Reading a checkpoint is what these tests would wait for.
predictor_of = functools.cache(Predictor.load)


def accuracy(run, images, labels):
    return np.mean(predictor_of(run).logits(images).argmax(axis=1) == labels)


def first_of_each_class(labels, count):
    chosen = []
    for number, label in enumerate(labels):
        if sum(labels[n] == label for n in chosen) < count:
            chosen.append(number)
    return chosen


def corrupted(images, numbers, name, severity, seed):
    corruption = Corruption(name, severity, seed)
    return np.stack([corruption(images[number], number) for number in numbers])


def test_generated_corruptions_by_brute_force(monkeypatch, capsys, runs, digits, tmp_path):
    flags = ["--checkpoint", *runs, "--generate", "--corruptions", *GENERATED]
    flags += ["--images-per-class", 6, "--seed", 3, "--output", tmp_path]
    status, lines, errors = run_program(monkeypatch, capsys, ood, *flags, "--baseline", runs[1])
    assert status == 0
    shown = " ".join(map(str, runs))
    assert errors[-3:] == [
        "next:",
        f"  python3 -m experiments.open_lt --open SOURCE --checkpoint {shown}",
        f"  python3 -m experiments.report {shown}",
    ]
    images, labels = digits
    numbers = first_of_each_class(labels, 6)
    saved = json.loads((tmp_path / "ood.json").read_text())["runs"]
    errors = {}
    for run in runs:
        clean = saved[run.name]["sets"]["clean"]
        assert clean["images"] == 60
        assert clean["accuracy"] == pytest.approx(accuracy(run, images[numbers], labels[numbers]))
        for name in GENERATED:
            errors[run, name] = [
                1 - accuracy(run, corrupted(images, numbers, name, s, 3), labels[numbers])
                for s in SEVERITIES
            ]
            found = saved[run.name]["corruptions"][name]
            np.testing.assert_allclose(
                [1 - found[str(s)]["accuracy"] for s in SEVERITIES], errors[run, name]
            )
    ratios = [sum(errors[runs[0], name]) / sum(errors[runs[1], name]) for name in GENERATED]
    assert saved["long"]["mean_corruption_error"] == pytest.approx(np.mean(ratios))
    assert saved["short"]["mean_corruption_error"] == pytest.approx(1)
    (row,) = (line for line in lines if line.startswith("| mCE"))
    assert row.split() == ["|", "mCE", "|", f"{100 * np.mean(ratios):.2f}", "|", "100.00", "|"]
    assert (tmp_path / "table.md").read_text().strip() == "\n".join(lines).strip()
    for name in ("corruptions.png", "reliability.png"):
        assert image.imread(tmp_path / name).std() > 0


def test_images_do_not_depend_on_the_number_of_processes(monkeypatch, capsys, runs, tmp_path):
    flags = ["--checkpoint", runs[0], "--generate", "--corruptions", "gaussian_noise"]
    flags += ["--images-per-class", 4]
    for workers in (1, 2):
        output = tmp_path / str(workers)
        more = ("--workers", workers, "--output", output)
        assert run_program(monkeypatch, capsys, ood, *flags, *more)[0] == 0
    first, second = ((tmp_path / str(n) / "ood.json").read_bytes() for n in (1, 2))
    assert first == second
    assert b"mean_error_unnormalized" in first


def test_folders_and_a_tree_of_the_runs_own_images(monkeypatch, capsys, runs, digits, tmp_path):
    images, labels = (array[:90] for array in digits)
    sketches = write_classes(tmp_path / "sketches", 255 - images, labels)
    copies = write_classes(tmp_path / "copies", images, labels)
    for severity in SEVERITIES:
        darker = (images // severity).astype(np.uint8)
        write_classes(tmp_path / "c" / "brightness" / str(severity), darker, labels)
    flags = ["--checkpoint", runs[0], "--folders", sketches, copies]
    flags += ["--corruptions-tree", tmp_path / "c", "--output", tmp_path / "out"]
    status, lines, _ = run_program(monkeypatch, capsys, ood, *flags)
    assert status == 0
    saved = json.loads((tmp_path / "out" / "ood.json").read_text())["runs"]["long"]
    expected = accuracy(runs[0], images, labels)
    assert saved["sets"]["copies"]["accuracy"] == pytest.approx(expected)
    inverted = accuracy(runs[0], 255 - images, labels)
    assert saved["sets"]["sketches"]["accuracy"] == pytest.approx(inverted)
    errors = [1 - accuracy(runs[0], images // s, labels) for s in SEVERITIES]
    assert saved["corruption_errors"]["brightness"] == pytest.approx(np.mean(errors))
    assert saved["sets"]["corrupted"]["accuracy"] == pytest.approx(1 - np.mean(errors))
    (row,) = (line for line in lines if line.startswith("| mean error"))
    assert f"{100 * np.mean(errors):.2f}" in row
    assert any("not normalized by a baseline" in line for line in lines)
    assert any("over 1 of ImageNet-C's 15 corruptions" in line for line in lines)


def test_a_folder_without_some_classes_leaves_them_out(monkeypatch, capsys, runs, digits, tmp_path):
    images, labels = digits
    write_classes(tmp_path / "few", images[labels < 3], labels[labels < 3])
    flags = ["--checkpoint", runs[0], "--folders", tmp_path / "few"]
    assert run_program(monkeypatch, capsys, ood, *flags)[0] == 0
    saved = json.loads((runs[0] / "ood" / "ood.json").read_text())["runs"]["long"]["sets"]["few"]
    assert [value is None for value in saved["per_class"]] == [False] * 3 + [True] * 7
    assert saved["images"] == int((labels < 3).sum())
    shutil.rmtree(runs[0] / "ood")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            ["--folders", "{birds}", "--corruptions", "fog"],
            "corruptions must go with generate",
        ),
        ([], "folders, corruptions_tree or generate must be given, got none"),
        (
            ["--generate", "--corruptions-tree", "{c}"],
            "corruptions_tree must be none with generate, got ",
        ),
        (["--generate", "--corruptions", "rain"], "corruption must be one of gaussian_noise"),
        (["--generate", "--corruptions", "fog", "fog"], "corruptions must be different"),
        (["--generate", "--images-per-class", "0"], "images_per_class must be at least 1"),
        (["--generate", "--workers", "0"], "workers must be at least 1"),
        (["--generate", "--baseline", "alexnet"], "baseline must be a run with generate"),
        (["--generate", "--baseline", "/nowhere"], "/nowhere"),
        (["--corruptions-tree", "{c}", "--baseline", "alexnet"], "got alexnet with 10 classes"),
        (["--folders", "{birds}", "--baseline", "{run}"], "baseline must go with"),
        (["--folders", "{birds}"], "must be named after classes of the run"),
        (["--folders", "/nowhere"], "/nowhere must be a directory"),
        (["--folders", "{bad}"], "bad.png must be a file that can be decoded"),
        (["--folders", "{bad}", "{bad}"], "folders must have different names"),
        (["--corruptions-tree", "{birds}"], "owl must be named after a corruption"),
        (["--corruptions-tree", "{c}"], "must hold the severities 1 to 5, got 1, 2"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, tmp_path, runs, flags, named):
    for directory in ("birds/owl", "bad/3", "c/fog/1/3", "c/fog/2/3"):
        (tmp_path / directory).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / directory / "good.png")
    (tmp_path / "bad" / "3" / "bad.png").write_bytes(b"no image")
    before = files_of(tmp_path, *runs)
    values = {name: tmp_path / name for name in ("birds", "bad", "c")} | {"run": runs[0]}
    flags = ["--checkpoint", runs[0], *(flag.format(**values) for flag in flags)]
    status, lines, errors = run_program(monkeypatch, capsys, ood, *flags)
    assert (status, lines) == (2, [])
    assert len(errors) == 1, errors
    assert named in errors[0]
    assert files_of(tmp_path, *runs) == before


def test_runs_of_other_data_are_not_evaluated_together(monkeypatch, capsys, runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    identity = json.loads((other / "recipe.json").read_text())
    identity["data"]["evaluated"]["labels"] = "0" * 16
    (other / "recipe.json").write_text(json.dumps(identity))
    flags = ["--checkpoint", runs[0], other, "--generate"]
    status, _, errors = run_program(monkeypatch, capsys, ood, *flags)
    assert status == 2
    assert "must have the same dataset" in errors[0]
