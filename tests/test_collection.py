"""Collecting the tests costs no compilation, whichever of them run then."""


def test_nothing_is_compiled_at_collection(compiled_at_collection):
    assert not compiled_at_collection
