"""A user's mistake ends in one line that names it, status 2, and nothing written or lost."""

import gzip
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import run_program

from experiments import cifar_lt

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data.source",
    "digits",
    "--network",
    "mlp",
    "--data.profile.imbalance-factor",
    "10",
    "--epochs",
    "2",
]


SAM = ("--method", "sam")


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path):
    """Runs cifar_lt, expects a refusal in one line, and returns the line."""

    def check(*flags, workdir=tmp_path / "run", defaults=SMALL):
        before = sorted(tmp_path.rglob("*"))
        arguments = [*defaults, "--workdir", workdir, *flags]
        status, _, lines = run_program(monkeypatch, capfd, cifar_lt, *arguments)
        assert status == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert sorted(tmp_path.rglob("*")) == before, "nothing may be written"
        return lines[0]

    return check


def idx(array):
    magic = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_directory(tmp_path):
    rng = np.random.default_rng(0)
    directory = tmp_path / "mnist"
    directory.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        labels = (np.arange(count) % 3).astype(np.uint8)
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return directory


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            ["--data.source", "mnits"],
            "--data.source must be one of digits, idx, cifar, tfds, folder, hf, list, got mnits",
        ),
        (["--data.source", "idx:/nowhere"], "/nowhere"),
        (["--data.source", "folder:/nowhere"], "/nowhere"),
        (["--data.profile.class-order", "0", "1", "2"], "permutation of 0..9"),
        (["--method", "sam", "--method.rho", "-0.1"], "--method.rho must be at least 0, got -0.1"),
        (
            ["--method", "sse_sam", "--method.tail-rho", "-1"],
            "--method.tail-rho must be at least 0, got -1",
        ),
        (
            ["--method", "cc_sam", "--method.flat-ratio", "2"],
            "--method.flat-ratio must be between 0 and 1, got 2",
        ),
        (["--network", "resnet33"], "got resnet33; the nearest is resnet"),
        (["--epochs", "0"], "--epochs must be an integer of at least 1, got 0"),
        (["--optimizer.lr", "-1"], "--optimizer.lr must be at least 0, got -1"),
        (
            ["--evaluation.many-above", "5", "--evaluation.few-below", "50"],
            "few_below must be at most many_above + 1, 6, got 50",
        ),
        (["--method", "adam"], "--method must be one of sgd, sam,"),
        (["--epoch", "3"], "such as --epochs"),
        (
            ["--method", "sam", "--method.rho", "big"],
            "--method.rho must be a number, at least 0, got big",
        ),
        (["--method.rho", "0.1"], "--method sgd: it is of sam, imb_sam, focal_sam,"),
        (["--recipe", "resnet"], "recipe must be a named one"),
        ([*SAM, "--method.rho-epochs", "3", "--method.rho-values", "0.1", "0.2"], "rho_values"),
        (
            [*SAM, "--method.rho-epochs", "1", "--method.rho-values", "-1"],
            "--method.rho-values must be a list, each at least 0, got -1",
        ),
        (
            [*SAM, "--method.rho-epochs", "1", "--method.rho-values", "inf"],
            "rho_values must be finite",
        ),
        (
            [*SAM, "--method.rho-epochs", "5", "2", "--method.rho-values", "1", "2"],
            "rho_epochs must be ascending",
        ),
        (
            ["--reweighting", "class_balanced", "--reweighting.beta", "1"],
            "--reweighting.beta must be in [0, 1), got 1",
        ),
        (
            ["--augmentation.policy", "autoaugment", "--pipeline", "device"],
            "got device: give --pipeline tf",
        ),
        (["--sampler", "rare_first"], "--sampler must be one of instance, class_balanced,"),
        (
            ["--sampler", "class_aware", "--sampler.consecutive", "0"],
            "--sampler.consecutive must be",
        ),
        (["--augmentation.cutout", "-1"], "--augmentation.cutout must be"),
        (["--measure-every", "-1"], "measure_every must be at least 0, got -1"),
        (["--augmentation.mixup", "-1"], "--augmentation.mixup must be at least 0, got -1"),
        (["--learn-scale"], "learn_scale must be false at first, got true"),
        (["--adversary", "paper"], "trainable must be classifier with an adversary, got all"),
        (["--then.0.epochs", "3"], "got --then.0.epochs"),
        (
            ["--recipe", "cc_sam_digits", "--then.0.augmentation.mixup", "1"],
            "mixup must be 0 with an adversary",
        ),
    ],
)
def test_a_bad_flag(refused, flags, named):
    assert named in refused(*flags)


@pytest.mark.parametrize("factor", ["0.5", "1000"])
def test_an_imbalance_that_cannot_be(refused, factor):
    """Less than one, or more than leaves an image of the tail class."""
    line = refused("--data.profile.imbalance-factor", factor)
    assert re.search(rf"imbalance.factor .*{factor}", line)
    assert factor == "0.5" or "tail class" in line


def test_a_refused_run_writes_no_split(refused, tmp_path):
    split = tmp_path / "split.json"
    line = refused("--data.validation-per-class", 5000, "--data.split-file", split)
    assert re.search("(held_out|validation_per_class) .*5000", line)


def test_a_truncated_gzip(refused, idx_directory):
    images = idx_directory / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-20])
    assert str(images) in refused("--data.source", f"idx:{idx_directory}")


def test_a_missing_idx_file(refused, idx_directory):
    (idx_directory / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k" in refused("--data.source", f"idx:{idx_directory}")


def test_a_class_without_image(refused, idx_directory):
    labels = idx_directory / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx((np.arange(60) % 2 * 2).astype(np.uint8))))
    assert "got none of class 1" in refused("--data.source", f"idx:{idx_directory}")


def test_a_split_of_another_dataset(refused, monkeypatch, capfd, tmp_path, idx_directory):
    split = tmp_path / "split.json"
    flags = [*SMALL, "--workdir", tmp_path / "first", "--data.split-file", split]
    assert run_program(monkeypatch, capfd, cifar_lt, *flags)[0] == 0
    line = refused("--data.source", f"idx:{idx_directory}", "--data.split-file", split)
    assert str(split) in line
    assert "digits" in line


def test_an_unwritable_workdir(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "writable directory" in refused(workdir=tmp_path / "file" / "run")


def test_a_workdir_of_something_else(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    assert "holds something else" in refused(workdir=tmp_path / "photos")


def test_a_workdir_of_another_recipe_and_no_resume(refused, monkeypatch, capfd, tmp_path):
    workdir = tmp_path / "run"
    assert run_program(monkeypatch, capfd, cifar_lt, *SMALL, "--workdir", workdir)[0] == 0
    line = refused("--optimizer.lr", "0.3", "--optimizer.momentum", "0.5")
    assert (
        "optimizer.lr is 0.1 there and 0.3 here; optimizer.momentum is 0.9 there and 0.5 here"
        in line
    )
    assert "seed is 0 there and 1 here" in refused("--seed", "1")
    assert "--no-resume" in refused("--no-resume")


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(monkeypatch, capfd, tmp_path):
    flags = [*SMALL, "--evaluation.epochs", "1", "--workdir", tmp_path / "run"]
    assert run_program(monkeypatch, capfd, cifar_lt, *flags)[0] == 0
    for _ in range(2):
        damage_and_resume(monkeypatch, capfd, tmp_path, flags)
    assert len(list((tmp_path / "run" / "checkpoints").glob("damaged-*"))) == 2


def damage_and_resume(monkeypatch, capfd, tmp_path, flags):
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    directory = tmp_path / "run" / "checkpoints"
    newest = max(
        (path for path in directory.iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
    )
    for file in newest.rglob("*"):
        if file.is_file() and "state" in file.parts:
            os.truncate(file, 0)
    status, _, lines = run_program(monkeypatch, capfd, cifar_lt, *flags)
    assert status == 0
    assert any(f"checkpoint of step {newest.name}" in line and "damaged" in line for line in lines)
    assert any("resumed after step" in line for line in lines)
    assert len(lines) < 12, lines
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    assert (directory / newest.name).is_dir()


def test_a_real_process_prints_no_traceback(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.cifar_lt",
            "--data.source",
            "mnits",
            "--workdir",
            tmp_path / "x",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --data.source must be one of digits, idx, cifar, tfds, folder, hf, list, "
        "got mnits\n"
    )
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()
