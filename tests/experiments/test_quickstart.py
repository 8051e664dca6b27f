"""Methods compared on one data set: their runs, table, numbers by class and pictures."""

import json
import sys

import numpy as np
import pytest
from matplotlib import image
from small_runs import run_program

from experiments import command_line, fashion_lt, quickstart
from experiments.presentation import COLORS, MARKERS
from experiments.table.plan import Entry
from experiments.table.program import plan_methods
from experiments.table.render import draw_by_class, format_markdown
from jaxlt.recipes.methods import Method
from jaxlt.recipes.part import annotations, part_name, part_types
from jaxlt.recipes.stage import Stage

FLAGS = ["--epochs", "1", "--seeds", "0", "1", "--methods", "sgd", "cc_sam"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny quickstart, run once."""
    workdir = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quickstart", *FLAGS, "--workdir", str(workdir)])
        command_line.run(quickstart.main)
    return workdir


def read(file):
    return json.loads(file.read_text())


def test_quickstart_saves_runs_table_and_pictures(finished):
    results = read(finished / "results.json")
    assert set(results["runs"]) == {"sgd", "cc_sam"}
    for method, runs in results["runs"].items():
        for seed, run in enumerate(runs):
            assert run == read(finished / method / f"seed{seed}" / "result.json")
    rows = rows_of((finished / "table.md").read_text())
    assert rows[0] == ["method", "many", "medium", "few", "all", "seconds"]
    assert [row[0] for row in rows[1:]] == ["SGD", "CC-SAM"]
    mean = 100 * np.mean([run["accuracy"] for run in results["runs"]["sgd"]])
    assert rows[1][4].startswith(f"{mean:.1f} ± ")
    assert sum(results["class_counts"]) == 390
    for picture in ("table.png", "accuracy_by_class.png"):
        assert image.imread(finished / picture).shape[1] > 500


def test_finished_runs_are_not_repeated(finished, monkeypatch, capfd):
    before = (finished / "results.json").read_bytes()
    flags = [*FLAGS, "--workdir", finished]
    status, out, lines = run_program(monkeypatch, capfd, quickstart, *flags)
    assert status == 0
    assert (finished / "results.json").read_bytes() == before
    assert "\n".join(out).strip() == (finished / "table.md").read_text().strip()
    runs = f"{finished}/sgd/seed0 {finished}/cc_sam/seed0"
    assert lines[-3:] == [
        "next:",
        f"  python3 -m experiments.report {finished}",
        f"  python3 -m experiments.flatness --checkpoint {runs}",
    ]


@pytest.mark.parametrize("setting", fashion_lt.SETTINGS)
def test_fashion_lt_compares_on_images_of_any_source(monkeypatch, capfd, tmp_path, setting):
    flags = ["--source", "digits", "--setting", setting, "--workdir", tmp_path]
    flags += ["--epochs", "1", "--seeds", "0", "--methods", "sgd"]
    status, out, _ = run_program(monkeypatch, capfd, fashion_lt, *flags)
    assert status == 0
    assert [row[0] for row in rows_of("\n".join(out))[1:]] == ["SGD"]
    counts = read(tmp_path / "results.json")["class_counts"]
    assert max(counts) >= 50 * min(counts)


@pytest.mark.parametrize("program", [quickstart, fashion_lt])
def test_bad_flags(monkeypatch, capfd, program):
    for flags, named in (
        (["--methods", "adamw"], "adamw"),
        (["--epochs", "0"], "epochs must be an integer of at least 1"),
        (["--seeds"], "seeds must name at least one seed"),
        (["--seeds", "0", "0"], "seeds must be different, got 0 0"),
        (["--methods"], "methods must name at least one method"),
        (["--methods", "sgd", "sgd"], "methods must be different"),
    ):
        status, _, lines = run_program(monkeypatch, capfd, program, *flags)
        assert status == 2, flags
        assert len(lines) == 1, lines
        assert named in lines[0]


def test_a_workdir_that_is_a_file(monkeypatch, capfd, tmp_path):
    (tmp_path / "file").write_text("")
    flags = ("--workdir", tmp_path / "file")
    status, _, lines = run_program(monkeypatch, capfd, quickstart, *flags)
    assert status == 2
    assert len(lines) == 1, lines
    assert "writable directory" in lines[0]


def test_the_methods_of_both_programs_share_their_base():
    for base, methods in (
        (quickstart.BASE, quickstart.METHODS),
        (fashion_lt.SETTINGS["hard"], fashion_lt.METHODS["hard"]),
    ):
        of = plan_methods("", base, methods, list(map(part_name, methods)))
        assert len(of.recipes) == 6
        for (name, recipe), method in zip(of.recipes.items(), methods, strict=True):
            assert name == part_name(method)
            assert recipe == base.with_first(method=method)


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def run_with(few, seconds):
    shots = {"many": 90.0, "medium": 80.0, "few": few, "accuracy": 70.0}
    return {**shots, "seconds": seconds, "per_class": [0.9, 0.8, 0.4]}


def row_of(method, runs):
    of = plan_methods("", quickstart.BASE, quickstart.METHODS, [method])
    entries = [
        Entry(of.cells[0], measure, {n: run[measure] for n, run in enumerate(runs)}, {})
        for measure in of.measures
    ]
    return rows_of(format_markdown(of, entries, range(len(runs)), ""))[1]


def test_table_has_means_and_sample_deviations():
    cells = row_of("imb_sam", [run_with(10.0, 1.0), run_with(30.0, 2.0)])
    assert cells == ["ImbSAM", "90.0 ± 0.0", "80.0 ± 0.0", "20.0 ± 14.1", "70.0 ± 0.0", "1.5 ± 0.7"]


def test_table_marks_a_group_without_class():
    assert row_of("sgd", [run_with(float("nan"), 1.0)])[3] == "-"


def test_picture_is_drawn(tmp_path):
    runs = {method: [run_with(10.0, 1.0)] for method in ("SGD", "SAM")}
    draw_by_class((100, 10, 1), runs, tmp_path / "picture.png", "test images")
    pixels = image.imread(tmp_path / "picture.png")
    assert pixels.shape[0] > 500
    assert np.ptp(pixels[..., :3]) > 0.9


def test_every_method_has_a_name_a_color_and_a_marker():
    methods = part_types(annotations(Stage)["method"])
    labels = {method.label for method in methods if issubclass(method, Method)}
    assert len(labels) == len(methods)
    assert Method.label not in labels
    assert len(set(COLORS)) == len(COLORS) >= len(methods)
    assert len(set(MARKERS)) == len(MARKERS) >= len(methods)
