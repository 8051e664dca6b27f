"""Progress of an analysis: a bar with rate and ETA on a terminal, plain lines in a log."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def ticking(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Counts pieces of work; yields a function to be called after so many pieces."""
    began = said = time.perf_counter()
    done = 0
    with tqdm(total=total, desc=label, unit=unit, disable=not sys.stderr.isatty()) as bar:

        def tick(pieces: int) -> None:
            nonlocal done, said
            done += pieces
            bar.update(pieces)
            now = time.perf_counter()
            if bar.disable and (done == total or now - said > _SECONDS_BETWEEN_LINES):
                said, rate = now, done / (now - began)
                left = tqdm.format_interval((total - done) / rate)
                counted = f"{label}: {unit} {done}/{total}"
                _logger.info("%s, %.3g a second, ETA %s", counted, rate, left)

        yield tick
