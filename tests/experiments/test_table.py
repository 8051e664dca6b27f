"""Tables of recipes and seeds: their numbers, what they refuse, runs in several processes."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from small_runs import HANGS
from written_runs import COUNTS, MODEL

from experiments import command_line
from experiments.endings import stop_at_once
from experiments.table import __main__ as table
from experiments.table import program as table_program
from experiments.table.plan import Cell, Changes, Plan, plan_table, read_entries
from experiments.table.processes import train_in_processes
from experiments.table.render import draw_table, format_markdown, write_csv
from jaxlt import UsageError
from jaxlt.recipes import Data, Digits, Recipe, Small
from jaxlt.recipes.named import RECIPES, Published, vary
from jaxlt.recipes.named.tables import TABLES
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, code_version

ROOT = Path(__file__).parents[2]
NOW = code_version()
FIRST = Recipe(data=Data(source=Digits()), network=Small(architecture="mlp"))
SECOND = vary(FIRST, lr=0.3)


def pretend(directory, name, recipe, seed, accuracy, code=(NOW,), images="abc", **result):
    """Writes by hand what a finished run leaves."""
    path = directory / name / f"seed{seed}"
    path.mkdir(parents=True)
    identity = {**recipe.identity(), "seed": seed, "images": images}
    (path / "recipe.json").write_text(json.dumps(identity))
    groups = {"many": 0.9, "medium": 0.8, "few": None}
    shots = {"step": 1, "accuracy": accuracy, "balanced_accuracy": accuracy, **groups}
    shots |= {"per_class": [accuracy] * len(COUNTS), **result}
    (path / "split.json").write_text(json.dumps({"class_counts": COUNTS}))
    names = [f"class {number}" for number in range(len(COUNTS))]
    described = {**MODEL, "num_classes": len(COUNTS), "class_names": names}
    (path / "model.json").write_text(json.dumps(described))
    (path / "metrics.jsonl").write_text(json.dumps(shots) + "\n")
    (path / "result.json").write_text(json.dumps({**shots, "seconds": 1.0, "code": list(code)}))
    return path


def plan(by_group=False):
    published = Published("somewhere", 82.68, few=10.0)
    cells = (
        Cell("SGD", "left", "first", FIRST, published=published),
        Cell("SGD", "right", "second", SECOND),
        Cell("SAM", "right", "third", SECOND),
    )
    return Plan("A title", cells[:1] if by_group else cells, by_group)


def rendered(directory, seeds, of=None):
    of = of or plan()
    return format_markdown(of, read_entries(directory, of, seeds), seeds, NOW)


def cells_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in [rows[0], *rows[2:]]}


@pytest.fixture
def three(tmp_path):
    pretend(tmp_path, "first", FIRST, 0, 0.7)
    pretend(tmp_path, "first", FIRST, 1, 0.9)
    pretend(tmp_path, "second", SECOND, 0, 0.625)
    return tmp_path


@pytest.fixture
def program(monkeypatch, capfd):
    """Runs experiments.table in this process; returns the status and both outputs."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["table", *map(str, flags)])
        status = 0
        try:
            command_line.run(table.main)
        except SystemExit as stop:
            status = stop.code
        out, err = capfd.readouterr()
        return status, out, err.splitlines()

    return run


def test_means_deviations_published_and_unfinished(three):
    text = rendered(three, (0, 1))
    # The deviation of 70 and 90 is sqrt(2 * 10**2 / (2 - 1)).
    assert cells_of(text) == {
        "": ["left", "right"],
        "SGD": ["80.00 ± 14.14 (82.68)", "62.50 n=1"],
        "SAM": ["", "n=0"],
    }
    assert "A title" in text
    assert "seeds 0 1; published in brackets" in text
    assert "†" not in text


def test_groups(three):
    text = rendered(three, (0, 1), plan(by_group=True))
    assert cells_of(text) == {
        "": ["many", "medium", "few", "all"],
        "SGD": ["90.00 ± 0.00", "80.00 ± 0.00", "- (10.00)", "80.00 ± 14.14 (82.68)"],
    }


def test_csv(three):
    write_csv(three / "table.csv", read_entries(three, plan(), (0, 1)))
    with (three / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0].values()) == [
        *("first", "SGD", "left", "accuracy", "80.0000", "14.1421", "0 1", "82.68"),
        f"{NOW} {NOW}",
    ]
    assert [row["mean"] for row in rows] == ["80.0000", "62.5000", ""]
    assert [row["deviation"] for row in rows] == ["14.1421", "", ""]
    assert [row["seeds"] for row in rows] == ["0 1", "0", ""]


def test_other_code_is_marked_and_listed(three):
    pretend(three, "second", SECOND, 1, 0.6, code=("0ld",))
    pretend(three, "second", SECOND, 2, 0.6, code=("0ld", NOW))
    pretend(three, "third", SECOND, 1, 0.6, code=("0ld",))
    text = rendered(three, (0, 1, 2))
    assert cells_of(text)["SGD"] == ["80.00 ± 14.14 (82.68) n=2", "60.83 ± 1.44 †"]
    assert cells_of(text)["SAM"] == ["", "60.00 n=1 †"]
    assert text.splitlines()[-2:] == [
        "- 0ld: second seed 1, third seed 1",
        f"- 0ld then {NOW}: second seed 2",
    ]
    assert NOW in text.splitlines()[-4]


def test_a_first_stage_is_read_from_its_last_evaluation(tmp_path):
    path = pretend(tmp_path, "first", FIRST, 0, 0.9)
    shots = dict.fromkeys(("many", "medium", "few", "balanced_accuracy"), 0.5)
    shots["per_class"] = [0.5] * len(COUNTS)
    lines = [
        {"step": step, "stage": stage, "accuracy": accuracy, **shots}
        for step, stage, accuracy in ((5, 0, 0.1), (10, 0, 0.25), (15, 1, 0.9))
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cells = tuple(Cell(str(stage), "", "first", FIRST, stage) for stage in (None, 0))
    shown = cells_of(rendered(tmp_path, (0,), Plan("", cells, by_group=False)))
    assert (shown["None"], shown["0"]) == (["90.00"], ["25.00"])
    with pytest.raises(UsageError, match=r"seed0 must hold evaluations of stage 2"):
        rendered(tmp_path, (0,), Plan("", (Cell("", "", "first", FIRST, 2),), by_group=False))


def test_runs_on_different_images_are_refused(tmp_path):
    for seed in (0, 1):
        pretend(tmp_path, "first", FIRST, seed, 0.9, images=f"images{seed}")
    with pytest.raises(UsageError, match="seed0 has images0, seed1 has images1"):
        rendered(tmp_path, (0, 1))


@pytest.mark.parametrize("mode", [["--render-only"], [], ["--jobs", "2"]])
def test_a_run_of_another_recipe_is_refused_before_anything_is_written(program, tmp_path, mode):
    path = pretend(tmp_path, "crt_digits", SECOND, 1, 0.9)
    before = sorted(tmp_path.rglob("*"))
    flags = ["digits_lt", "--rows", "sgd", "crt", "--seeds", "0-1", "--workdir", tmp_path]
    status, out, lines = program(*flags, *mode)
    assert (status, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(f"error: workdir {path} must be new or hold a run of this recipe")
    assert "optimizer.lr is 0.3 there and 0.05 here" in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_that_is_no_run_is_refused(program, tmp_path):
    (tmp_path / "sgd_digits" / "seed0").mkdir(parents=True)
    (tmp_path / "sgd_digits" / "seed0" / "cat.jpg").write_text("")
    status, _, lines = program(
        "digits_lt", "--rows", "sgd", "--seeds", "0", "--workdir", tmp_path, "--render-only"
    )
    assert status == 2
    assert "got something else" in lines[0]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["nonsense"], "name must be a table that --list prints, got nonsense"),
        ([], "name must be a table that --list prints, got nothing"),
        (["digits_lt", "--source", "mnits"], "--source must be one of digits, idx, cifar, tfds"),
        (["digits_lt", "--network", "resnet33"], "got resnet33; the nearest is resnet34"),
        (["digits_lt", "--rows", "sdg"], "rows must be among sgd, mixup"),
        (["digits_lt", "--rows", "sgdd"], "cc_sam, got sgdd; the nearest is sgd"),
        (["digits_lt", "--columns", "x"], "columns must be among digits, got x"),
        (["flattening", "--rows", "swa_2", "--columns", "ldam_drw_cifar100"], "in common"),
        (["digits_lt", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["digits_lt", "--seeds", "1", "1"], "seeds must be different"),
        (["digits_lt", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["digits_lt", "--render-only"], "must hold finished runs of the table"),
    ],
)
def test_a_bad_flag(program, tmp_path, flags, named):
    workdir = tmp_path / "table"
    status, _, lines = program(*flags, "--workdir", workdir)
    assert (status, len(lines)) == (2, 1)
    assert named in lines[0]
    assert not workdir.exists()


def test_render_only_trains_nothing(program, monkeypatch, tmp_path):
    monkeypatch.setattr(table_program, "train_missing", None)
    pretend(tmp_path, "sgd_digits", RECIPES["sgd_digits"], 0, 0.875)
    before = set(tmp_path.rglob("*"))
    status, out, lines = program(
        "digits_lt", "--seeds", "0", "--workdir", tmp_path, "--render-only"
    )
    assert status == 0, lines
    assert cells_of(out)["CE"][-1] == "87.50"
    assert cells_of(out)["cRT"][-1] == "n=0"
    assert (tmp_path / "table.md").read_text().strip() == out.strip()
    written = set(tmp_path.rglob("*")) - before
    assert {path.name for path in written} == {"table.md", "table.csv", "table.png"}
    assert image.imread(tmp_path / "table.png").shape[1] > 1000


def test_picture_has_a_mark_for_each_number(three):
    def colored(of, color):
        draw_table(of, read_entries(three, of, (0, 1)), three / "picture.png")
        pixels = image.imread(three / "picture.png")[..., :3]
        return int((np.abs(pixels - np.array(color) / 255).max(axis=-1) < 0.02).sum())

    blue, vermilion = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    of = plan()
    assert colored(of, blue) > 100
    assert colored(of, vermilion) > 50
    assert colored(dataclasses.replace(of, comparable=False), vermilion) == 0


def test_every_layout_has_its_recipes():
    for name, layout in TABLES.items():
        of = plan_table(layout)
        keys = [cell.key for cell in of.cells]
        assert len(set(keys)) == len(keys), name
        assert {cell.row for cell in of.cells} == {label for label, _ in layout.rows}, name
        assert {cell.column for cell in of.cells} == {label for label, _ in layout.columns}, name
        assert of.comparable
    by_key = {cell.key: cell for cell in plan_table(TABLES["cifar_lt"]).cells}
    assert by_key["gcl_cifar10"].published.accuracy == 82.68
    assert by_key["gcl_cifar10"].column == "CIFAR-10, IF 100"


def test_changes_apply_to_every_recipe_and_are_said():
    changes = Changes(source=Digits(), network="mlp", epochs=4, evaluation_epochs=2)
    of = plan_table(TABLES["cifar_lt"], ("crt",), ("cifar10",), changes)
    (recipe,) = of.recipes.values()
    published = RECIPES["crt_cifar10"]
    assert recipe == vary(
        published.shortened(4),
        source=Digits(),
        network=Small(architecture="mlp"),
        evaluation=published.evaluation.replace(epochs=2),
    )
    assert not of.comparable
    assert "source digits, network mlp, epochs 4" in of.notes[0]


def test_a_network_keeps_the_classifier_of_each_recipe():
    of = plan_table(TABLES["cifar_lt"], ("ldam_drw",), ("cifar10",), Changes(network="mlp"))
    (recipe,) = of.recipes.values()
    classifier = RECIPES["ldam_drw_cifar10"].network.classifier
    assert recipe.network == Small(architecture="mlp", classifier=classifier)


def test_keys_are_listed(program):
    status, out, lines = program("--list")
    assert (status, lines[0]) == (0, "next:")
    assert [line.split()[0] for line in out.splitlines()[2:]] == list(TABLES)
    layout = TABLES["cifar_lt"]
    for flags in (["--list", "cifar_lt"], ["cifar_lt", "--list"]):
        status, out, _ = program(*flags)
        keys = [line.split()[0] for line in out.splitlines() if line and line[0] != "-"]
        known = [key for _, key in layout.rows], [key for _, key in layout.columns]
        assert keys == ["row", *known[0], "column", *known[1]]
    assert all(len(line) <= 120 for line in out.splitlines())


RUN = [
    *("cifar_lt", "--rows", "crt", "--columns", "cifar10", "--source", "digits"),
    *("--network", "mlp", "--seeds", "0-1", "--pipeline", "device"),
]


def metrics(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("metrics.jsonl"))
    }


def test_a_mistake_in_a_process_ends_all_in_one_line(program, tmp_path):
    # No image is left to digit 9 at an imbalance factor of 200.
    flags = [*RUN, "--columns", "cifar10_if200", "--jobs", "2", "--workdir", tmp_path / "table"]
    status, out, lines = program(*flags)
    assert (status, out) == (2, "")
    assert len(lines) == 1, lines
    assert "for the tail class to have an image" in lines[0]


def start(workdir, log, environment, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.table", *RUN, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=log.open("a"),
        env=environment,
    )


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition):
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begun(workdir):
    """Runs that have saved something and are not finished."""
    saved = {
        path.parents[1] for path in workdir.glob("*/seed*/checkpoints/*") if path.name.isdigit()
    }
    return [path for path in saved if not (path / "result.json").exists()]


def stop_in_the_middle(process, workdir, stop):
    """Stops the program when it has processes and a run has begun; returns its status."""

    def is_time():
        assert process.poll() is None, "the runs must be long enough to be stopped"
        return begun(workdir) and len(children(process.pid)) >= 2

    wait_until(is_time)
    workers = children(process.pid)
    os.kill(process.pid, stop)
    status = process.wait()
    wait_until(lambda: not any(map(lives, workers)))
    return status


def test_signals_are_taken_as_before_once_the_processes_have_ended():
    before = signal.signal(signal.SIGTERM, stop_at_once)
    try:
        train_in_processes([], 2, DEFAULT_EXECUTION)
        assert signal.getsignal(signal.SIGTERM) is stop_at_once
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux for a process's children")
def test_stopped_and_killed_runs_of_two_processes_have_the_bits_of_one(tmp_path, user_environment):
    flags = ["--epochs", "200", "--evaluation-epochs", "10"]
    two = (user_environment, *flags, "--jobs", "2")
    workdir, log = tmp_path / "stopped", tmp_path / "log"
    # The first stop is in the middle of training; the second while the processes are starting.
    for stop, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = start(workdir, log, *two)
        assert stop_in_the_middle(process, workdir, stop) == status, log.read_text()
    assert log.read_text().splitlines()[-1] == "stopped by SIGINT with 2 runs to go, state saved"
    assert start(workdir, log, *two).wait() == 0, log.read_text()
    assert start(tmp_path / "whole", tmp_path / "log of one", user_environment, *flags).wait() == 0
    assert list(metrics(workdir)) == [f"crt_cifar10/seed{n}/metrics.jsonl" for n in (0, 1)]
    assert metrics(workdir) == metrics(tmp_path / "whole")
    lines = [line for line in log.read_text().splitlines() if line]
    # A run of which nothing was saved when its parent was killed begins anew.
    assert any("resumed after step" in line for line in lines)
    others = [line for line in lines if not line.startswith("crt_cifar10 seed ")]
    assert [line.split()[0] for line in others[:3]] == ["stopped", "table.md,", "next:"], others
    assert all(line.startswith("  python3 -m experiments.") for line in others[3:]), others
