"""A real training process, killed at random points, ends with the bits of one never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUM_KILLS = 4
# 720 steps of ImbSAM with batches that straddle epochs, an evaluation and a checkpoint every 18.
ONE_STAGE = {
    "dataset": "digits",
    "imbalance-factor": 20,
    "model": "small_conv",
    "method": "imb_sam",
    "rho": 0.1,
    "batch-size": 66,
    "epochs": 120,
    "eval-epochs": 3,
    "lr": 0.05,
}
# 240 steps of CC-SAM and 500 of its second stage, with other checkpoints on either side.
TWO_STAGES = {
    "recipe": "cc_sam_digits",
    "epochs": 39,
    "eval-epochs": 3,
    "then.0.epochs": 81,
}


def start(run, workdir, log):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.cifar_lt", f"--workdir={workdir}"]
        + [f"--{name}={value}" for name, value in run.items()],
        cwd=ROOT,
        stderr=log.open("a"),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def finish(run, workdir, log):
    assert start(run, workdir, log).wait() == 0, log.read_text()
    steps = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    last = max(steps, key=lambda path: int(path.name))
    record = json.loads((last / "record" / "metadata").read_text())
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    return last.name, record["digest"], result, (workdir / "metrics.jsonl").read_bytes()


def newest_checkpoint(workdir):
    steps = [int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()]
    return max(steps, default=0)


def wait_for_progress(process, workdir, step):
    """Returns once this process has saved a checkpoint later than the step."""
    while process.poll() is None and newest_checkpoint(workdir) <= step:
        time.sleep(0.01)


@pytest.fixture(scope="module", params=[ONE_STAGE, TWO_STAGES], ids=["one stage", "two stages"])
def run(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run):
    directory = tmp_path_factory.mktemp("uninterrupted")
    return finish(run, directory / "run", directory / "log")


def test_sigkill_at_random_points(tmp_path, run, uninterrupted):
    workdir, log = tmp_path / "run", tmp_path / "log"
    generator = random.Random(0)
    survived = 0
    for _ in range(NUM_KILLS):
        process = start(run, workdir, log)
        wait_for_progress(process, workdir, newest_checkpoint(workdir))
        time.sleep(generator.uniform(0, 0.5))
        process.kill()
        survived += process.wait() == -signal.SIGKILL
    assert survived >= 3, "the run must be long enough to be killed in it"
    assert finish(run, workdir, log) == uninterrupted
    assert log.read_text().count("resumed after step") == NUM_KILLS


def test_sigterm_saves_and_says_so(tmp_path, run, uninterrupted):
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = start(run, workdir, log)
    wait_for_progress(process, workdir, 0)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    last = log.read_text().splitlines()[-1]
    assert last.startswith("stopped by SIGTERM after step")
    step = int(last.split("step ")[1].split(",")[0])
    assert (workdir / "checkpoints" / str(step)).is_dir()
    assert finish(run, workdir, log) == uninterrupted
    assert f"resumed after step {step} of" in log.read_text()
