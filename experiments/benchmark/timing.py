"""Times of several steps, measured in alternation so that all meet the machine's same moods."""

import logging
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from tqdm import tqdm

_logger = logging.getLogger(__name__)

TimedStep: TypeAlias = Callable[[], object]  # runs one training step to its end

Name = TypeVar("Name", bound=str)


def _seconds(step: TimedStep) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def alternate(
    groups: Sequence[Mapping[Name, Any]], rounds: int, timed: Callable[[Any], Any] = _seconds
) -> list[dict[Name, list[Any]]]:
    """Returns each step's times, one a round; one more round goes before, to warm up.

    Each round begins one step further on in every group, the steps of one library: the first finds
    caches and threads as another library left them, and is to be another step each time.
    """
    times: list[dict[Name, list[Any]]] = [{name: [] for name in steps} for steps in groups]
    began = time.perf_counter()
    for index in range(rounds + 1):
        for steps, found in zip(groups, times, strict=True):
            first = index % max(len(steps), 1)
            for name in [*steps][first:] + [*steps][:first]:
                found[name].append(timed(steps[name]))
        elapsed = time.perf_counter() - began
        done = f"round {index}/{rounds}" if index else "warm-up"
        left = tqdm.format_interval(elapsed / (index + 1) * (rounds - index))
        _logger.info("%s, %.1f s, ETA %s", done, elapsed, left)
    return [{name: values[1:] for name, values in found.items()} for found in times]


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Returns the median over rounds of the ratio of two times from the same round.

    A machine that slows down for a minute slows both, which the ratio of medians would not see.
    """
    return float(np.median(np.divide(numerator, denominator)))


def prepare_machine() -> dict[str, Any]:
    """Has all programs compiled anew; logs and returns what the machine is, as JSON values."""
    # A program from the persistent cache would show a compile time of nothing.
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    machine = {
        "cpu": _cpu_model(),
        "cores": count_cores(),
        "device": device.device_kind,
        "platform": device.platform,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    _logger.info("%(cpu)s, %(cores)d cores, device %(device)s, jax %(jax)s", machine)
    return machine


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
