"""Runs a document's program in a process of its own, with a CPU that stands for eight devices."""

import os
import subprocess
import sys
from pathlib import Path


def run_with_eight_devices(program: str) -> None:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
    }
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
