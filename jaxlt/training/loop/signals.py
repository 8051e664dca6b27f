"""SIGTERM and SIGINT, collected while a run saves its state."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; the second of a kind acts as if nobody had caught the first."""
    received: list[int] = []
    before: dict[int, Any] = {
        signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)
    }

    def collect(signum: int, frame: object) -> None:
        del frame
        received.append(signum)
        signal.signal(signum, before[signum])

    for signum in before:
        signal.signal(signum, collect)
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
