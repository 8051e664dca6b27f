"""The log of curves for TensorBoard, written by the thread that trains."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # Made when it is imported, where none can look.
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar


class Events:
    """A file of events, in a directory that may hold those of earlier sessions.

    `tensorboardX.SummaryWriter` writes in a thread of its own: where the disk is full that thread
    dies, and training waits for it for ever. This one raises OSError.

    Args:
        directory: created if missing.
        first_step: earlier sessions' events of this step and later ones are hidden.
    """

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory / "events"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=start))

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve, on disk when this returns."""
        for name, number in numbers.items():
            self._write(Event(step=step, summary=scalar(name, number)))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
