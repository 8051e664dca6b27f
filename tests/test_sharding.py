"""A batch spread over eight devices gives the update of the same batch on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_problems import METHODS

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def differences():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(TESTS.parent),
    }
    run = subprocess.run(
        [sys.executable, TESTS / "sharded_updates.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("way", ["auto", "explicit", "shard_map"])
@pytest.mark.parametrize(
    "name",
    ["plain gradient", *METHODS, "cc_sam classifier", "cc_sam random", "random_perturbation"],
)
def test_sharded_update_equals_that_of_one_device(name, way, differences):
    """Updates, states and class losses; states are float32."""
    assert differences[f"{name}, {way}"] < 1e-6
