"""A real training process, killed wherever it may be, ends with the bits of one never stopped."""

import itertools
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
# 71 steps of ImbSAM with batches that straddle epochs and 305 of CC-SAM's second stage, an
# evaluation and a checkpoint every 18 or so.
BOUNDARY = 71
RUN = {
    "recipe": "cc_sam_digits",
    "network": "small_conv",
    "method": "imb_sam",
    "method.scope": "all",
    "method.rho": 0.1,
    "method.tail-threshold": 30,
    "batch-size": 66,
    "epochs": 12,
    "evaluation.epochs": 3,
    "then.0.epochs": 50,
    "measure-every": 7,
}
AIMS = ("evaluation", "boundary", "save", "anywhere")
# So slow that a kill can be aimed at it, and with a file that is there meanwhile.
SLOW_EVALUATION = """
import pathlib, runpy, sys, time
from jaxlt.recipes import built_recipe as experiment
mark, pause, evaluate = pathlib.Path(sys.argv.pop(1)), float(sys.argv.pop(1)), experiment.evaluate
def slow(*arguments):
    mark.touch()
    result = evaluate(*arguments)
    time.sleep(pause)
    mark.unlink()
    return result
experiment.evaluate = slow
runpy.run_module("experiments.cifar_lt", run_name="__main__")
"""


def newest_checkpoint(workdir):
    steps = [int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()]
    return max(steps, default=0)


def half_saved(workdir, since=0.0):
    """Whether a checkpoint is being written, or was when the run was killed, not before a time."""
    halves = workdir.glob("checkpoints/*orbax-checkpoint-tmp*")
    return any(half.stat().st_ctime > since for half in halves if half.exists())


def ending(workdir):
    """What two runs of the same bits have in common."""
    last = newest_checkpoint(workdir)
    record = json.loads((workdir / "checkpoints" / str(last) / "record" / "metadata").read_text())
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    return last, record["digest"], result, (workdir / "metrics.jsonl").read_bytes()


class Victim:
    """Runs of one recipe, each in a new directory, that are stopped and started again."""

    def __init__(self, place, environment, **other):
        self._place, self._environment, self._flags = place, environment, RUN | other
        place.mkdir()
        self._generator, self._numbers = random.Random(0), itertools.count()
        self.mark = place / "evaluating"
        self.renew()

    def renew(self):
        number = next(self._numbers)
        self.workdir, self.log = self._place / f"run{number}", self._place / f"log{number}"
        self.starts = 0

    def start(self, pause=0.5):
        program = ["-c", SLOW_EVALUATION, str(self.mark), str(pause)]
        self.mark.unlink(missing_ok=True)
        self.starts += 1
        return subprocess.Popen(
            [sys.executable, *program, f"--workdir={self.workdir}"]
            + [f"--{name}={value}" for name, value in self._flags.items()],
            cwd=ROOT,
            stderr=self.log.open("a"),
            env=self._environment,
        )

    def stop(self, aim, signum):
        """Starts the run and stops it there; returns the exit status, 0 if it was too late."""
        before = newest_checkpoint(self.workdir)
        began = time.time()
        reached = {
            # What the kill before has left is no sign of a save under way.
            "save": lambda: half_saved(self.workdir, since=began),
            "evaluation": self.mark.exists,
            "boundary": lambda: newest_checkpoint(self.workdir) >= max(BOUNDARY, before + 1),
            "anywhere": lambda: newest_checkpoint(self.workdir) > before,
        }[aim]
        process = self.start()
        while process.poll() is None and not reached():
            time.sleep(0.001)
        most = {"save": 0.01, "evaluation": 0.5, "boundary": 0.02, "anywhere": 0.6}[aim]
        time.sleep(self._generator.uniform(0, most))
        process.send_signal(signum)
        return process.wait()

    def finish(self):
        assert self.start(pause=0).wait() == 0, self.log.read_text()
        return ending(self.workdir)


def test_killed_once_and_gone_on_with(tmp_path):
    short = {"epochs": 6, "then.0.epochs": 4}
    whole, victim = (Victim(tmp_path / name, os.environ, **short) for name in ("whole", "killed"))
    expected = whole.finish()
    while (status := victim.stop("anywhere", signal.SIGKILL)) == 0:
        victim.renew()
    assert status == -signal.SIGKILL
    assert victim.finish() == expected
    assert "resumed after step" in victim.log.read_text()


@pytest.mark.soak
def test_killed_and_stopped_anywhere(tmp_path, user_environment, num_kills):
    """By SIGKILL, then by SIGTERM and SIGINT, which save first and say so."""
    whole = Victim(tmp_path / "whole", user_environment)
    expected = whole.finish()
    metrics = (whole.workdir / "metrics.jsonl").read_text()
    assert metrics.count("measurement") == BOUNDARY // 7 + 305 // 7
    victim, aims = Victim(tmp_path / "stopped", user_environment), []
    for aim in itertools.islice(itertools.cycle(AIMS), num_kills):
        while (status := victim.stop(aim, signal.SIGKILL)) == 0:
            assert ending(victim.workdir) == expected
            victim.renew()
        assert status == -signal.SIGKILL
        half, evaluating = half_saved(victim.workdir), victim.mark.exists()
        aims.append((aim, newest_checkpoint(victim.workdir), half, evaluating))
    assert ("evaluation", True) in {(aim, evaluating) for aim, _, _, evaluating in aims}
    assert ("boundary", BOUNDARY) in {(aim, step) for aim, step, _, _ in aims}
    for signum in (signal.SIGTERM, signal.SIGINT):
        while (status := victim.stop("anywhere", signum)) == 0:
            assert ending(victim.workdir) == expected
            victim.renew()
        assert status == 128 + signum
        last = victim.log.read_text().splitlines()[-1]
        assert last.startswith(f"stopped by {signum.name} after step")
        step = int(last.split("step ")[1].split(",")[0])
        assert newest_checkpoint(victim.workdir) == step
    assert victim.finish() == expected
    assert f"resumed after step {step} of" in victim.log.read_text()
    print(f"{len(aims)} kills (aim, checkpoint, half saved, evaluating):", *aims, sep="\n")
