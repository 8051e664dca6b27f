"""A user's mistake ends in one line that names it, status 2, and nothing written or lost."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import run_program

from experiments import cifar_lt, fashion_lt, quickstart

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset", "digits", "--model", "mlp", "--imbalance-factor", "10", "--epochs", "2"]


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
        (["--dataset", "mnits"], "dataset 'mnits' is unknown"),
        (["--dataset", "idx:/nowhere"], "/nowhere"),
        (["--dataset", "folder:/nowhere"], "/nowhere"),
        (["--imbalance-factor", "0.5"], "imbalance factor is 0.5"),
        (["--imbalance-factor", "1000"], "the tail class has no image"),
        (["--class-order", "0", "1", "2"], "permutation of 0..9"),
        (["--method", "sam", "--rho", "-0.1"], "rho must be at least 0 and finite, got -0.1"),
        (["--method", "sse_sam", "--tail-rho", "-1"], "tail_rho must be at least 0"),
        (["--method", "cc_sam", "--flat-ratio", "2"], r"flat_ratio must lie in [0, 1], got 2.0"),
        (["--model", "resnet33"], "'resnet33'"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--lr", "-1"], "lr must be at least 0, got -1.0"),
        (["--many-above", "5", "--few-below", "50"], "few_below was 50"),
        (["--method", "adam"], "--method"),
        (["--epoch", "3"], "--epoch"),
        (["--rho", "big"], "--rho"),
        (["--recipe", "resnet"], "--recipe"),
        (["--rho-epochs", "3", "--rho-values", "0.1", "0.2"], "rho_values"),
        (["--rho-epochs", "1", "--rho-values", "-1"], "rho_values must be finite and at least 0"),
        (["--rho-epochs", "5", "2", "--rho-values", "1", "2"], "rho_epochs must be ascending"),
        (["--reweight-epoch", "1", "--reweight-beta", "1"], "reweight_beta must be in [0, 1)"),
        (["--policy", "autoaugment", "--pipeline", "device"], "use --pipeline tf"),
        (["--sampler", "rare_first"], "--sampler"),
        (["--sampler", "class_aware", "--consecutive", "0"], "consecutive"),
        (["--cutout", "-1"], "cutout"),
        (["--measure-every", "-1"], "measure_every must be at least 0, got -1"),
        (["--mixup", "-1"], "mixup must be at least 0, got -1.0"),
        (["--learn-scale"], "learn_scale must be off in the first stage"),
        (["--adversary", "paper"], "trainable must be classifier with an adversary, got all"),
        (["--then.0.epochs", "3"], "--then.0.epochs"),
        (["--recipe", "cc_sam_digits", "--then.0.mixup", "1"], "mixup must be 0 with an adversary"),
    ],
)
def test_a_bad_flag(refused, flags, named):
    assert named in refused(*flags)


def test_a_refused_run_writes_no_split(refused, tmp_path):
    split = tmp_path / "split.json"
    line = refused("--held-out", 5000, "--split-file", split)
    assert "held_out is 5000" in line


def test_a_truncated_gzip(refused, idx_directory):
    images = idx_directory / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-20])
    assert str(images) in refused("--dataset", f"idx:{idx_directory}")


def test_a_missing_idx_file(refused, idx_directory):
    (idx_directory / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k" in refused("--dataset", f"idx:{idx_directory}")


def test_a_class_without_image(refused, idx_directory):
    labels = idx_directory / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx((np.arange(60) % 2 * 2).astype(np.uint8))))
    assert "class 1 has no training image" in refused("--dataset", f"idx:{idx_directory}")


def test_a_split_of_another_dataset(refused, monkeypatch, capfd, tmp_path, idx_directory):
    split = tmp_path / "split.json"
    flags = [*SMALL, "--workdir", tmp_path / "first", "--split-file", split]
    assert run_program(monkeypatch, capfd, cifar_lt, *flags)[0] == 0
    line = refused("--dataset", f"idx:{idx_directory}", "--split-file", split)
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
    line = refused("--lr", "0.3", "--momentum", "0.5")
    assert "lr is 0.1 there and 0.3 here; momentum is 0.9 there and 0.5 here" in line
    assert "seed is 0 there and 1 here" in refused("--seed", "1")
    assert "--no-resume" in refused("--no-resume")


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(monkeypatch, capfd, tmp_path):
    flags = [*SMALL, "--eval-epochs", "1", "--workdir", tmp_path / "run"]
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


@pytest.mark.parametrize("program", [quickstart, fashion_lt])
def test_bad_flags_of_the_comparisons(monkeypatch, capfd, tmp_path, program):
    (tmp_path / "file").write_text("")
    for flags, named in (
        (["--methods", "adamw"], "adamw"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--seeds"], "seeds must name at least one seed"),
        (["--seeds", "0", "0"], "seeds must be different, got 0 0"),
        (["--methods"], "methods must name at least one method"),
        (["--workdir", tmp_path / "file"], "writable directory"),
    ):
        status, _, lines = run_program(monkeypatch, capfd, program, *flags)
        assert status == 2, flags
        assert len(lines) == 1, lines
        assert named in lines[0]


def test_a_real_process_prints_no_traceback(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.cifar_lt",
            "--dataset",
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
        "error: dataset 'mnits' is unknown, it must be digits, idx:DIR, tfds:NAME, folder:DIR, "
        "list:ROOT,TRAIN,TEST or tfds:NAME,TRAIN,TEST\n"
    )
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()
