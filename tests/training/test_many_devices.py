"""One device, eight devices and several processes train alike, with every method.

`many_devices.py` trains: all of its cases on eight devices, some in several processes.
"""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_problems import METHODS

HERE = Path(__file__).parent
pytestmark = pytest.mark.soak

# What several processes do otherwise than several devices of one: rows of a batch from each,
# parameters divided among them, loops over blocks of images.
OF_PROCESSES = {
    2: ["sgd 64", "imb_sam 32", "cc_sam 64", "sam sharded 64", "imb_sam factored 32"],
    4: ["sse_sam 64"],
}


def start(file, cases, num_devices=1, cluster=()):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
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


def wait_for(processes):
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What one device and eight save, by their number."""
    directory = tmp_path_factory.mktemp("saved")
    files = {number: directory / f"{number}.npz" for number in (1, 8)}
    wait_for([start(file, ["all"], num_devices=number) for number, file in files.items()])
    found = {number: np.load(file) for number, file in files.items()}
    ways = {f"{method} 64" for method in ("sgd", *METHODS)}
    assert ways <= set(found[1]), "a method without a case would be left out"
    return found


def check(found, expected, name):
    moved = expected[name] - expected[f"{name} before"]
    assert np.linalg.norm(moved) > 1e-3, "the steps must have done something"
    scale = expected[name] if found[name].dtype == np.float32 else moved
    bound = 1e-6 if found[name].dtype == np.float32 else 1e-12
    assert np.linalg.norm(found[name] - expected[name]) <= bound * np.linalg.norm(scale)


def test_eight_devices_train_as_one_does(saved):
    """Every method with batch norm, m-sharpness against a loop over the shards, and the rest."""
    for name in (name for name in saved[1] if not name.endswith("before")):
        check(saved[8], saved[1], name)


@pytest.mark.parametrize("number", OF_PROCESSES)
def test_several_processes_train_as_one_does(saved, tmp_path, number):
    file = tmp_path / "saved.npz"
    wait_for(start_processes(file, number))
    for name in OF_PROCESSES[number]:
        check(np.load(file), saved[1], name)


def test_methods_differ(saved):
    """Else a method that is not applied would pass."""
    ends = [saved[1][name] for name in saved[1] if name.endswith("sam 64")]
    for index, end in enumerate(ends):
        for other in ends[:index]:
            assert np.linalg.norm(end - other) > 1e-6 * np.linalg.norm(end)


def test_perturbations_by_shard_are_others(saved):
    one = saved[1]
    assert np.linalg.norm(one["sam by shard 64"] - one["sgd by shard 64"]) > 1e-6
