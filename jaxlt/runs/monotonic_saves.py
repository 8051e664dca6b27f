"""Saves whose time limits do not depend on the clock on the wall."""

import importlib
import time
import types

COUNTING = ("checkpointers.async_checkpointer", "futures.future", "futures.signaling_client")
"""Modules of `orbax.checkpoint._src` that count how long a save has taken."""


def count_saves_by_monotonic_clock() -> None:
    """Has Orbax count the time that a save takes by a clock that never jumps.

    Orbax takes `time.time` and has no option for another clock. So a clock that is set forward
    while a save is under way ends the run with a TimeoutError.

    Its modules that count are private. `pyproject.toml` pins the versions in which they are known
    to be there, and `tests/runs/test_monotonic_saves.py` fails where Orbax has moved them. In
    another version the call does nothing, and a run goes on by Orbax's clock.

    Remove this function when Orbax counts time limits by `time.monotonic`, or takes a clock.
    """
    monotonic = types.SimpleNamespace(**{**vars(time), "time": time.monotonic})
    for name in COUNTING:
        try:
            module = importlib.import_module(f"orbax.checkpoint._src.{name}")
        except ImportError:
            continue
        if getattr(module, "time", None) is time:
            module.__dict__["time"] = monotonic
