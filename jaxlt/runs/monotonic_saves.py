"""Saves whose time limits do not depend on the clock on the wall."""

import importlib
import time
import types

_COUNTING = ("checkpointers.async_checkpointer", "futures.future", "futures.signaling_client")


def count_saves_by_monotonic_clock() -> None:
    """Has Orbax count the time that a save takes by a clock that never jumps.

    It takes `time.time` and has no option for that: a clock that is set forward while a save is
    under way ends the run with a TimeoutError. Does nothing in versions of Orbax that lack the
    modules that count.
    """
    monotonic = types.SimpleNamespace(**{**vars(time), "time": time.monotonic})
    for name in _COUNTING:
        try:
            module = importlib.import_module(f"orbax.checkpoint._src.{name}")
        except ImportError:
            continue
        if getattr(module, "time", None) is time:
            module.__dict__["time"] = monotonic
