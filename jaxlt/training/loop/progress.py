"""Progress of a run: a bar with rate and ETA on a terminal or in a notebook, lines in a log."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.asyncio import tqdm_asyncio
from tqdm.auto import tqdm

from jaxlt.devices.processes import is_first

# Where tqdm.auto finds a notebook it has another class of its own.
_IN_NOTEBOOK = tqdm is not tqdm_asyncio

# Seconds without a line after which a log gets one.
_QUIET = 30.0

_logger = logging.getLogger(__name__)


class Progress:
    """Counts the steps of one run, of which some were taken before."""

    def __init__(self, label: str, step: int, num_steps: int):
        self._label, self._first, self._num_steps = label, step, num_steps
        self._step, self._began = step, time.perf_counter()
        self._logged = self._began
        self._bar = tqdm(
            total=num_steps,
            initial=step,
            desc=label,
            unit="step",
            disable=not (is_first() and (_IN_NOTEBOOK or sys.stderr.isatty())),
        )

    def advance(self, steps: int) -> None:
        """Counts steps; where there is no bar, the log says so each half minute."""
        self._bar.update(steps)
        self._step += steps
        if self._bar.disable and time.perf_counter() - self._logged >= _QUIET:
            self._log()

    def report(self, step: int, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """Says how the members did, by means, - for none: in the bar if there is one, or a log."""
        text = ", ".join(
            f"{name} {np.mean([metrics[name] for metrics in evaluations]):.4g}"
            for name in ("train_loss", "accuracy", "few")
            if name in evaluations[0]
        ).replace(" nan", " -")
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
        else:
            # A stage may end in a step that is none of training.
            self._step = step
            self._log(f"{text}, ")

    def _log(self, text: str = "") -> None:
        self._logged = time.perf_counter()
        rate = (self._step - self._first) / (self._logged - self._began)
        left = tqdm.format_interval((self._num_steps - self._step) / rate)
        text = f"{text}{rate:.3g} steps/s, ETA {left}"
        _logger.info("%s: step %d/%d, %s", self._label, self._step, self._num_steps, text)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


class Stopwatch:
    """Adds up the time of steps but the first lap, which the data pipeline takes to start."""

    def __init__(self):
        self.seconds, self._since, self._warm = 0.0, 0.0, False

    def start(self) -> None:
        """Begins a stretch of steps."""
        self._since = time.perf_counter()

    def lap(self, without: float = 0.0) -> None:
        """Ends a lap, of which some seconds may not count."""
        now = time.perf_counter()
        if self._warm:
            self.seconds += now - self._since - without
        self._warm, self._since = True, now
