"""Collecting the tests costs no compilation, whichever of them run then."""

import jax


def test_nothing_is_compiled_at_collection(compilations):
    assert not compilations.places


def test_what_is_compiled_would_be_told(compilations, monkeypatch):
    monkeypatch.setattr(compilations, "places", [])
    monkeypatch.setattr(compilations, "collecting", True)
    jax.jit(lambda x: 3 * x + 1)(2.0)
    (place,) = compilations.places
    assert "test_collection.py" in place
