"""A clock that jumps by days changes no bit of a run, nor how long it says it took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import HANGS, train

from jaxlt.runs.workdir import RunFiles

ROOT = Path(__file__).parents[2]
FLAGS = ("--method=imb_sam", "--evaluation.epochs=1", "--measure-every=5")
# Python runs this before anything else; each look at the clock is days before or after the last.
JUMPING = """
import itertools, time
jumps, now, now_ns = itertools.cycle([0, 3, -5, 1, -2]), time.time, time.time_ns
time.time = lambda: now() + 86400 * next(jumps)
time.time_ns = lambda: now_ns() + 86400 * 10**9 * next(jumps)
"""


def ending(run):
    last = RunFiles(run).saved_steps()[-1]
    record = json.loads((run / "checkpoints" / str(last) / "record" / "metadata").read_text())
    return last, record["digest"], (run / "metrics.jsonl").read_bytes()


@pytest.mark.soak
def test_a_clock_that_jumps(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(whole, *FLAGS)
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    flags = [
        "--data.source=digits",
        "--network=mlp",
        "--data.profile.imbalance-factor=10",
        "--batch-size=32",
    ]
    flags += [*FLAGS, "--epochs=2", f"--workdir={run}"]
    jumping = subprocess.run(
        [sys.executable, "-m", "experiments.cifar_lt", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANGS,
    )
    assert jumping.returncode == 0, jumping.stderr
    assert ending(run) == ending(whole)
    assert RunFiles(run).saved_steps() == RunFiles(whole).saved_steps()
    seconds = json.loads((run / "result.json").read_text())["seconds"]
    assert 0 < seconds < 3600
