"""Disks that are full or read-only, for real: one line, what was saved stays, the run goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_disk import small_disk
from small_runs import HANGS, run_program, train

from experiments import cifar_lt
from jaxlt.runs.workdir import RunFiles

ROOT = Path(__file__).parents[2]
FLAGS = (
    *(
        "--data.source=digits",
        "--network=mlp",
        "--method=imb_sam",
        "--data.profile.imbalance-factor=10",
    ),
    *("--batch-size=32", "--epochs=8", "--evaluation.epochs=1", "--measure-every=5"),
    "--keep-checkpoints=20",
)


def ending(run):
    last = RunFiles(run).saved_steps()[-1]
    record = json.loads((run / "checkpoints" / str(last) / "record" / "metadata").read_text())
    return last, record["digest"], (run / "metrics.jsonl").read_bytes()


def refusal(output):
    """The only line of an output that is no progress."""
    lines = [line for line in output.splitlines() if not line.startswith("sgd_cifar10 seed 0: ")]
    assert len(lines) == 1, output
    return lines[0]


@pytest.mark.soak
def test_a_full_disk_and_a_read_only_one(tmp_path, monkeypatch, capsys):
    whole, place = tmp_path / "whole", tmp_path / "disk"
    place.mkdir()
    train(whole, *FLAGS, epochs=8)
    capsys.readouterr()
    with small_disk(place, "1m") as disk:
        run = disk.path / "run"
        flags = [*FLAGS, f"--workdir={run}"]
        stopped = subprocess.run(
            [sys.executable, "-m", "experiments.cifar_lt", *flags],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANGS,
        )
        assert stopped.returncode == 2, stopped.stderr
        line = refusal(stopped.stderr)
        assert f"workdir {run} " in line
        assert "No space left on device" in line
        kept = RunFiles(run).saved_steps()
        assert kept, "the disk must have room for a checkpoint"
        assert kept[-1] < RunFiles(whole).saved_steps()[-1]
        disk.remount("size=64m,ro")
        status, _, lines = run_program(monkeypatch, capsys, cifar_lt, *flags)
        assert status == 2
        line = refusal("\n".join(lines))
        assert f"workdir {run} " in line
        assert "ead-only" in line
        disk.remount("rw")
        status, _, lines = run_program(monkeypatch, capsys, cifar_lt, *flags)
        assert status == 0
        assert f"resumed after step {kept[-1]} of" in "\n".join(lines)
        assert "damaged" not in "\n".join(lines)
        assert ending(run) == ending(whole)
        new = disk.path / "new"
        disk.remount("ro")
        status, _, lines = run_program(monkeypatch, capsys, cifar_lt, *FLAGS, f"--workdir={new}")
        assert status == 2
        assert "ead-only" in refusal("\n".join(lines))
        assert not new.exists()
