"""Times of several steps measured in alternation, so that all meet the machine's same moods."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from tqdm import tqdm

_logger = logging.getLogger(__name__)

Step: TypeAlias = Callable[[], None]  # runs one training step to its end

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


def alternate(groups: Sequence[Mapping[Name, Step]], rounds: int) -> list[dict[Name, list[float]]]:
    """Runs every step once a round and times it; one more round goes before, to warm up.

    Each round begins one step further on in every group: the first of a group finds caches and
    threads as another library left them, and is to be another step each time.

    Args:
        groups: steps by name, one group for each library.
        rounds: how often.

    Returns:
        For each group, the seconds of each step, one number a round.
    """
    seconds: list[dict[Name, list[float]]] = [{name: [] for name in steps} for steps in groups]
    began = time.perf_counter()
    for index in range(rounds + 1):
        for steps, times in zip(groups, seconds, strict=True):
            for name in _rotated(list(steps), index):
                start = time.perf_counter()
                steps[name]()
                if index > 0:
                    times[name].append(time.perf_counter() - start)
        elapsed = time.perf_counter() - began
        _logger.info(
            "%s, %.1f s, ETA %s",
            f"round {index}/{rounds}" if index else "warm-up",
            elapsed,
            tqdm.format_interval(elapsed / (index + 1) * (rounds - index)),
        )
    return seconds


def _rotated(names: list[Name], by: int) -> list[Name]:
    by %= max(len(names), 1)
    return names[by:] + names[:by]


def spread(values: Sequence[float]) -> Spread:
    """Returns median and quartiles of some measurements."""
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(lower), float(upper))


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Returns the median over rounds of the ratio of two times from the same round.

    A machine that slows down for a minute slows both, which the ratio of medians would not see.
    """
    return float(np.median(np.divide(numerator, denominator)))
