"""A real training process, killed at random points, ends with the bits of one never stopped."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUM_KILLS = 3
# 71 steps of ImbSAM with batches that straddle epochs and 305 of CC-SAM's second stage, an
# evaluation and a checkpoint every 18 or so.
BOUNDARY = 71
RUN = {
    "recipe": "cc_sam_digits",
    "model": "small_conv",
    "method": "imb_sam",
    "scope": "all",
    "rho": 0.1,
    "batch-size": 66,
    "epochs": 12,
    "eval-epochs": 3,
    "then.0.epochs": 50,
    "measure-every": 7,
}


def newest_checkpoint(workdir):
    steps = [int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()]
    return max(steps, default=0)


def wait_for_progress(process, workdir, step):
    """Returns once this process has saved a checkpoint later than the step."""
    while process.poll() is None and newest_checkpoint(workdir) <= step:
        time.sleep(0.01)


def ending(workdir):
    """What two runs of the same bits have in common."""
    last = newest_checkpoint(workdir)
    record = json.loads((workdir / "checkpoints" / str(last) / "record" / "metadata").read_text())
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    return last, record["digest"], result, (workdir / "metrics.jsonl").read_bytes()


def test_killed_and_stopped_at_random_points(tmp_path, user_environment):
    """By SIGKILL, then by SIGTERM, which saves first and says so."""
    whole, workdir, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"

    def start(workdir):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.cifar_lt", f"--workdir={workdir}"]
            + [f"--{name}={value}" for name, value in RUN.items()],
            cwd=ROOT,
            stderr=log.open("a"),
            env=user_environment,
        )

    assert start(whole).wait() == 0, log.read_text()
    metrics = (whole / "metrics.jsonl").read_text()
    assert metrics.count("measurement") == BOUNDARY // 7 + 305 // 7
    generator, stops = random.Random(0), []
    for stop in [signal.SIGKILL] * NUM_KILLS + [signal.SIGTERM]:
        process = start(workdir)
        wait_for_progress(process, workdir, newest_checkpoint(workdir))
        time.sleep(generator.uniform(0, 0.3))
        process.send_signal(stop)
        status = process.wait()
        expected = 128 + stop if stop == signal.SIGTERM else -stop
        assert status == expected, "the run must be long enough to be stopped in it"
        stops.append(newest_checkpoint(workdir))
    assert stops[0] < BOUNDARY < stops[-1], "there must be stops in both stages"
    last = log.read_text().splitlines()[-1]
    assert last.startswith("stopped by SIGTERM after step")
    step = int(last.split("step ")[1].split(",")[0])
    assert newest_checkpoint(workdir) == step
    assert start(workdir).wait() == 0, log.read_text()
    assert ending(workdir) == ending(whole)
    assert log.read_text().count("resumed after step") == NUM_KILLS + 1
    assert f"resumed after step {step} of" in log.read_text()
