"""Orbax counts saves by the clock that it is given: fails where it has moved what is patched."""

import importlib
import inspect
import time

import pytest

from jaxlt.runs.checkpoint import COUNTING, count_saves_by_monotonic_clock


@pytest.fixture(params=COUNTING)
def module(request, monkeypatch):
    """A module of Orbax, as it is imported."""
    module = importlib.import_module(f"orbax.checkpoint._src.{request.param}")
    monkeypatch.setattr(module, "time", time)
    return module


def test_orbax_counts_by_a_clock_that_never_jumps(module, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    count_saves_by_monotonic_clock()
    assert module.time.time() == 7.0
    # All else is as it was.
    assert module.time.sleep is time.sleep


def test_orbax_still_counts_by_the_clock_that_is_replaced(module):
    """Once it does not, the patch is to be removed."""
    assert "time.time()" in inspect.getsource(module)
