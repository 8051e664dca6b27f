"""One device, eight devices and several processes train alike, with every method.

`many_devices.py` trains; of several processes the suite has time for some of its cases.
"""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
# What several processes do otherwise than several devices of one: rows of a batch from each,
# parameters divided among them, loops over blocks of images.
OF_PROCESSES = {
    2: ["sgd 64", "imb_sam 32", "cc_sam 64", "sam sharded 64", "imb_sam factored 32"],
    4: ["sse_sam 64"],
}


def start(file, cases, num_devices=1, cluster=()):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent))),
    }
    command = [sys.executable, HERE / "many_devices.py", file, ",".join(cases), *cluster]
    return subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
    )


def free_port():
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def start_processes(file, number):
    coordinator = f"localhost:{free_port()}"
    return [
        start(file, OF_PROCESSES[number], cluster=(coordinator, number, process))
        for process in range(number)
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What each setting saves, by the number of its devices and processes."""
    directory = tmp_path_factory.mktemp("saved")
    files = {name: directory / f"{name}.npz" for name in ("1", "8", "2 processes", "4 processes")}
    together = [
        [start(files["1"], ["all"]), start(files["8"], ["all"], num_devices=8)],
        start_processes(files["2 processes"], 2),
        start_processes(files["4 processes"], 4),
    ]
    for started in together:
        for process in started:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
    return {name: np.load(file) for name, file in files.items()}


def check(found, expected, name):
    moved = expected[name] - expected[f"{name} before"]
    assert np.linalg.norm(moved) > 1e-3, "the steps must have done something"
    scale = expected[name] if found[name].dtype == np.float32 else moved
    bound = 1e-6 if found[name].dtype == np.float32 else 1e-12
    assert np.linalg.norm(found[name] - expected[name]) <= bound * np.linalg.norm(scale)


def test_eight_devices_train_as_one_does(saved):
    """Every method with batch norm, m-sharpness against a loop over the shards, and the rest."""
    names = [name for name in saved["1"] if not name.endswith("before")]
    assert len(names) > 20
    for name in names:
        check(saved["8"], saved["1"], name)


@pytest.mark.parametrize("number", OF_PROCESSES)
def test_several_processes_train_as_one_does(saved, number):
    for name in OF_PROCESSES[number]:
        check(saved[f"{number} processes"], saved["1"], name)


def test_methods_differ(saved):
    """Else a method that is not applied would pass."""
    ends = [saved["1"][name] for name in saved["1"] if name.endswith("sam 64")]
    for index, end in enumerate(ends):
        for other in ends[:index]:
            assert np.linalg.norm(end - other) > 1e-6 * np.linalg.norm(end)


def test_perturbations_by_shard_are_others(saved):
    one = saved["1"]
    assert np.linalg.norm(one["sam by shard 64"] - one["sgd by shard 64"]) > 1e-6
