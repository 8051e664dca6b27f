"""The comparison of methods: its runs, its table and its picture."""

import json
import sys
from typing import get_args

import numpy as np
import pytest
from matplotlib import image

from experiments import command_line, quickstart
from experiments.comparison import NAMES, Results, draw, format_table, read_results
from experiments.presentation import COLOURS, MARKERS
from experiments.stage import Method


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny quickstart, run once."""
    workdir = tmp_path_factory.mktemp("quickstart")
    flags = ["--epochs", "1", "--seeds", "0", "1", "--methods", "sgd", "cc_sam"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quickstart", *flags, "--workdir", str(workdir)])
        command_line.run(quickstart.main)
    return workdir


def test_quickstart_saves_runs_table_and_picture(finished):
    results = read_results(finished / "results.json")
    assert set(results.runs) == {"sgd", "cc_sam"}
    for method, runs in results.runs.items():
        for seed, run in enumerate(runs):
            saved = json.loads((finished / method / f"seed{seed}" / "result.json").read_text())
            assert run == saved
    assert (finished / "table.md").read_text() == format_table(results) + "\n"
    assert sum(results.class_counts) == 390


def test_finished_runs_are_not_repeated(finished, monkeypatch):
    before = (finished / "results.json").read_bytes()
    flags = ["--epochs", "1", "--seeds", "0", "1", "--methods", "sgd", "cc_sam"]
    monkeypatch.setattr(sys, "argv", ["quickstart", *flags, "--workdir", str(finished)])
    command_line.run(quickstart.main)
    assert (finished / "results.json").read_bytes() == before


def run_with(few, seconds):
    shots = {"many": 0.9, "medium": 0.8, "few": few, "accuracy": 0.7}
    return {**shots, "seconds": seconds, "per_class": [0.9, 0.8, 0.4]}


def test_table_has_means_and_sample_deviations():
    runs = [run_with(0.1, 1.0), run_with(0.3, 2.0)]
    row = format_table(Results((100, 10, 1), {"imb_sam": runs})).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["ImbSAM", "90.0 ± 0.0", "80.0 ± 0.0", "20.0 ± 14.1", "70.0 ± 0.0", "1.5 ± 0.7"]


def test_table_marks_a_group_without_class():
    row = format_table(Results((100,), {"sgd": [run_with(None, 1.0)]})).splitlines()[2]
    assert row.split("|")[4].strip() == "-"


def test_picture_is_drawn(tmp_path):
    runs = {method: [run_with(0.1, 1.0)] for method in ("sgd", "sam")}
    draw(Results((100, 10, 1), runs), tmp_path / "picture.png")
    pixels = image.imread(tmp_path / "picture.png")
    assert pixels.shape[0] > 500
    assert np.ptp(pixels[..., :3]) > 0.9


def test_every_method_has_a_name_a_colour_and_a_marker():
    assert set(NAMES) == set(get_args(Method))
    assert len(set(COLOURS)) == len(COLOURS) >= len(NAMES)
    assert len(set(MARKERS)) == len(MARKERS) >= len(NAMES)
