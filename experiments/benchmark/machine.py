"""What the numbers were measured on."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import jax


def describe_machine() -> dict[str, Any]:
    """Returns processor, cores that this process may use, device and versions, as JSON values."""
    device = jax.devices()[0]
    return {
        "cpu": _cpu_model(),
        "cores": count_cores(),
        "device": device.device_kind,
        "platform": device.platform,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
