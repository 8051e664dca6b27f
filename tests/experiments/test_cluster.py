"""Several processes that train one run: stopped, killed, gone on with in another number."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_runs import HANGS

from experiments.cluster import Cluster
from jaxlt import UsageError
from jaxlt.runs.workdir import RunFiles

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--recipe=cc_sam_digits",
    "--network=mlp",
    "--method=imb_sam",
    "--method.scope=all",
    "--method.rho=0.1",
    "--batch-size=64",
    "--epochs=8",
    "--then.0.epochs=4",
    "--evaluation.epochs=2",
    "--measure-every=7",
)


def by_flags(process, number, port):
    coordinator = f"--coordinator=localhost:{port}"
    return [coordinator, f"--num-processes={number}", f"--process={process}"], {}


def by_slurm(process, number, port):
    del port
    names = {"JOB_ID": os.getpid(), "STEP_NODELIST": "localhost", "NTASKS": number}
    names |= {"PROCID": process, "LOCALID": 0}
    return [], {f"SLURM_{name}": str(value) for name, value in names.items()}


def by_open_mpi(process, number, port):
    names = {"SIZE": number, "RANK": process, "LOCAL_RANK": 0}
    environment = {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()}
    # Of the job's number, the first part, jax makes the port.
    uri = f"{port << 16}.0;tcp://127.0.0.1:1"
    return [], environment | {"OMPI_MCA_orte_hnp_uri": uri}


class Processes:
    """A run by some processes, each with a log of its own."""

    def __init__(self, workdir, number, environment, *flags, told=by_flags):
        with contextlib.closing(socket.socket()) as listening:
            listening.bind(("localhost", 0))
            port = listening.getsockname()[1]
        self._workdir, self._before = workdir, newest_step(workdir)
        self._logs = [workdir.with_suffix(f".{process}.log") for process in range(number)]
        self._started = []
        for process, log in enumerate(self._logs):
            own, changed = told(process, number, port)
            one = start(workdir, environment | changed, log, "--distributed", *own, *flags)
            self._started.append(one)

    def wait_for(self, condition):
        while not condition():
            assert all(process.poll() is None for process in self._started), self.lines()
            time.sleep(0.01)

    def wait_for_progress(self):
        self.wait_for(lambda: newest_step(self._workdir) > self._before)

    def send(self, process, signum):
        self._started[process].send_signal(signum)

    def wait(self):
        return [process.wait(timeout=HANGS) for process in self._started]

    def lines(self):
        """What each has written."""
        return [log.read_text().splitlines() for log in self._logs]


def start(workdir, environment, log, *flags):
    command = [sys.executable, "-m", "experiments.cifar_lt", f"--workdir={workdir}", *FLAGS, *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log.open("w"))


def newest_step(workdir):
    return max(RunFiles(workdir).saved_steps(), default=0)


def ending(workdir):
    """What runs of the same bits have in common."""
    record = workdir / "checkpoints" / str(newest_step(workdir)) / "record" / "metadata"
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    metrics = (workdir / "metrics.jsonl").read_bytes()
    return json.loads(record.read_text())["digest"], result, metrics


def numbers(value):
    """Yields all numbers in JSON values, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif value is not None:
        yield value


def check_alike(workdir, other):
    """Measurements and evaluations but for rounding, over 75 steps."""
    lines, expected = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (workdir, other)
    )
    assert len(lines) == len(expected)
    for one, two in zip(lines, expected, strict=True):
        # An image may fall into the next bin.
        one.pop("confidence_bins", None)
        two.pop("confidence_bins", None)
        np.testing.assert_allclose(list(numbers(one)), list(numbers(two)), rtol=2e-3, atol=2e-3)


@pytest.mark.soak
def test_stopped_killed_and_gone_on_with(tmp_path, user_environment):
    """By the same number of processes to the same bits, by another to the same numbers."""
    devices = {"JAX_NUM_CPU_DEVICES": "1"}
    whole, run, moved = (tmp_path / name for name in ("whole", "run", "moved"))
    assert Processes(whole, 2, user_environment | devices).wait() == [0, 0]

    stopped = Processes(run, 2, user_environment | devices)
    stopped.wait_for_progress()
    stopped.send(1, signal.SIGTERM)
    assert stopped.wait() == [143, 143], stopped.lines()
    assert stopped.lines()[0][-1].startswith("stopped by SIGTERM after step")
    assert not stopped.lines()[1], "process 0 alone logs"
    shutil.copytree(run, moved)

    for victim in (0, 1):
        killed = Processes(run, 2, user_environment | devices)
        killed.wait_for_progress()
        killed.send(victim, signal.SIGKILL)
        statuses = killed.wait()
        assert statuses[victim] == -signal.SIGKILL
        # Of process 0 JAX may know first, which then ends the others itself.
        line = {75: f"process {1 - victim}: another process has died", -6: "another task died"}
        assert line[statuses[1 - victim]] in "\n".join(killed.lines()[1 - victim])
    assert statuses == [75, -signal.SIGKILL]
    assert Processes(run, 2, user_environment | devices).wait() == [0, 0]
    assert ending(run) == ending(whole)

    four = {"JAX_NUM_CPU_DEVICES": "4"}
    log = tmp_path / "moved.log"
    ended = start(moved, user_environment | four, log, "--shard-parameters").wait()
    assert ended == 0, log.read_text()
    check_alike(moved, whole)


@pytest.mark.soak
@pytest.mark.parametrize("told", [by_slurm, by_open_mpi])
def test_a_mistake_is_said_once(tmp_path, user_environment, told):
    processes = Processes(tmp_path / "run", 2, user_environment, "--batch-size=63", told=told)
    assert processes.wait() == [2, 2]
    (line,), nothing = processes.lines()
    assert line == "error: batch_size must be a multiple of the 2 devices, got 63"
    assert not nothing
    assert not (tmp_path / "run").exists()


def by_flags_of_their_own(process, number, port):
    flags, environment = by_flags(process, number, port)
    flags.append(f"--measure-every={process}")
    return flags, environment


def test_processes_with_other_flags_are_refused(tmp_path, user_environment):
    """They would wait for each other in different places, for ever."""
    run = tmp_path / "run"
    processes = Processes(run, 2, user_environment, told=by_flags_of_their_own)
    assert processes.wait() == [2, 2]
    (line,) = processes.lines()[0]
    assert line.startswith("error: measure_every must be the same for all processes, got 0 for")
    assert not run.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process": 0}, "distributed must be given with process, got nothing"),
        ({"join_seconds": 5}, "distributed must be given with join_seconds, got nothing"),
        ({"distributed": True, "coordinator": "localhost"}, "HOST:PORT, got localhost"),
        ({"distributed": True, "num_processes": 0}, "num_processes must be at least 1, got 0"),
        ({"distributed": True, "num_processes": 2, "process": 2}, "below num_processes, 2, got 2"),
        ({"distributed": True, "heartbeat_seconds": 0}, "heartbeat_seconds must be at least 1"),
    ],
)
def test_flags_that_no_process_can_have(given, message):
    with pytest.raises(UsageError, match=message):
        Cluster(**given).check()
