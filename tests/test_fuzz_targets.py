"""Every reader takes files that once did harm, and damaged ones as Hypothesis draws them."""

import contextlib
import os
import pickle
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from fuzz import guard
from fuzz.mutations import damaged
from fuzz.targets import TARGETS, Target, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lanes import soak_but

from jaxlt.errors import UsageError

# JSON's smallest values take most: a list of 56 bytes for two characters.
_BYTES_A_BYTE = 64
_LONG = 4000
_SLOW = {"checkpoint": 6, "predictor": 6, "onnx_wheel": 40, "run": 60}
# Each reads a checkpoint many times; tests/runs/test_checkpoint.py damages every file of one.
_SOAK = {"checkpoint", "predictor"}


@pytest.fixture(
    scope="module",
    params=soak_but(TARGETS.keys() - _SOAK, TARGETS),
)
def name(request, tmp_path_factory):
    # What a first call imports and compiles is no reader's doing.
    for number, seed in enumerate(TARGETS[request.param].seeds):
        directory = tmp_path_factory.mktemp(f"warm{number}")
        with contextlib.suppress(UsageError):
            TARGETS[request.param].read(directory, seed)
    return request.param


def fed(name, content):
    most = _BYTES_A_BYTE * len(content) + TARGETS[name].megabytes * 2**20
    accepted, peak = traced(name, content)
    # Once in a while Python's own table of names grows, which takes megabytes of anyone's.
    assert peak < most or traced(name, content)[1] < most
    return accepted


def traced(name, content):
    """Returns whether a target takes the bytes, and the largest memory meanwhile."""
    with tempfile.TemporaryDirectory() as directory:
        tracemalloc.start()
        try:
            accepted = run(TARGETS[name], Path(directory), content)
            return accepted, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_whole_files_are_accepted_and_those_that_did_harm_end_in_a_line(name):
    seeds = TARGETS[name].seeds
    outcomes = [fed(name, seed) for seed in seeds]
    # The wheel's first network is whole as far as it goes, which is not far enough.
    assert outcomes[0] == (name != "onnx_wheel")


@pytest.mark.parametrize("times", soak_but({1}, [1, 5]))
def test_damaged_files_are_accepted_or_refused_in_a_line(name, times):
    @settings(
        max_examples=times * _SLOW.get(name, 150),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged([seed for seed in TARGETS[name].seeds if len(seed) < _LONG]))
    def check(content):
        fed(name, content)

    check()


def _write_outside(directory, content):
    (directory.parent / "outside").write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        lambda directory, content: pickle.loads(pickle.dumps(Path("a"))),
        lambda directory, content: exec("1"),
        lambda directory, content: subprocess.run(["true"], check=True),
        lambda directory, content: list(Path("/").iterdir()),
        lambda directory, content: os.scandir(directory / ".." / "..").close(),
        _write_outside,
    ],
)
def test_the_guard_sees_what_no_reader_may_do(tmp_path, harm):
    (tmp_path / "inside").mkdir()
    with pytest.raises(guard.Violation):
        run(Target(harm, []), tmp_path / "inside", b"a")


def test_the_guard_lets_errors_out_that_are_no_users_mistake(tmp_path):
    def fails(directory, content):
        raise RecursionError

    with pytest.raises(RecursionError):
        run(Target(fails, []), tmp_path, b"")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_damage_changes_files(data):
    seeds = [bytes(range(40)), b"0" * 40]
    content = data.draw(damaged(seeds))
    assert isinstance(content, bytes)
    assert len(content) < 10_000
