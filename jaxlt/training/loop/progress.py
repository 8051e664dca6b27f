"""Progress of a run: a bar with rate and ETA on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxlt.devices.processes import is_first

_logger = logging.getLogger(__name__)


class Progress:
    """Counts the steps of one run.

    Args:
        label: name of the run.
        num_steps: its length.
    """

    def __init__(self, label: str, num_steps: int):
        self._label, self._num_steps = label, num_steps

    def start(self, step: int) -> "Progress":
        """Begins at a step, to be used as a context manager."""
        self._first, self._began = step, time.perf_counter()
        self._bar = tqdm(
            total=self._num_steps,
            initial=step,
            desc=self._label,
            unit="step",
            disable=not (sys.stderr.isatty() and is_first()),
        )
        return self

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, steps: int) -> None:
        """Counts steps."""
        self._bar.update(steps)

    def report(self, step: int, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """Says how an evaluation went: in the bar on a terminal, else in a line of the log.

        Args:
            step: after which it was.
            evaluations: of each member; their means are shown.
        """
        shown = {
            name: float(np.mean([metrics[name] for metrics in evaluations]))
            for name in ("train_loss", "accuracy", "few")
            if name in evaluations[0]
        }
        text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
            return
        rate = (step - self._first) / (time.perf_counter() - self._began)
        _logger.info(
            "%s: step %d/%d, %s, %.3g steps/s, ETA %s",
            self._label,
            step,
            self._num_steps,
            text,
            rate,
            tqdm.format_interval((self._num_steps - step) / rate),
        )


class Stopwatch:
    """Adds up the time of steps.

    The first lap is left out: it is what the data pipeline takes to start.
    """

    def __init__(self):
        self.seconds = 0.0
        self._since = 0.0
        self._warm = False

    def start(self) -> None:
        """Begins a stretch of steps."""
        self._since = time.perf_counter()

    def lap(self, without: float = 0.0) -> None:
        """Ends a lap.

        Args:
            without: seconds of it that do not count.
        """
        now = time.perf_counter()
        if self._warm:
            self.seconds += now - self._since - without
        self._warm, self._since = True, now
