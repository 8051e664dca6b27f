"""Fixtures, and strictness for the tests of the core."""

import gc
import os
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import array_checks as array_checks  # before jaxlt, which it makes check its arrays
import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import pytest

_TESTS = Path(__file__).parent
_CORE = {_TESTS / name for name in ("batch", "losses", "methods", "sharpness")}


def _set(name: str, value: Any) -> None:
    """For this process and for those that tests start."""
    os.environ[f"JAX_{name.upper()}"] = str(value)
    jax.config.update(f"jax_{name}", value)


class Precision(NamedTuple):
    dtype: type
    tolerance: float


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="kills of a training process")


class Compilations:
    """Where programs were compiled while tests were collected."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.collecting = True
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration: float, **about: object) -> None:
        if self.collecting and event == "/jax/core/compile/backend_compile_duration":
            *frames, _ = traceback.extract_stack()
            files = [f"{f.filename}:{f.lineno}" for f in frames if str(_TESTS) in f.filename]
            self.places.append(" ".join(files))


_compilations = Compilations()


# No test fails because the machine is busy.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


def pytest_configure(config):
    # Compiling is what small problems wait for: the same HLO, less work by LLVM, and kernels of
    # fusions that need half the time to make. XLA of JAX 0.11.1 has no such flag, and ends the
    # process on a flag that it does not know.
    _set("disable_most_optimizations", True)
    if jax.__version_info__ < (0, 11, 1):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {flags}"
    # What one process compiles, the others and the next run of the tests find.
    if not config.pluginmanager.hasplugin("cacheprovider"):
        return
    _set("enable_compilation_cache", True)
    _set("compilation_cache_dir", str(config.cache.mkdir("compiled")))
    _set("persistent_cache_min_compile_time_secs", 0.0)
    _set("persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent in _CORE:
            item.add_marker(pytest.mark.filterwarnings("error"))
            # Another worker may be writing the program that is looked for: it is compiled then.
            item.add_marker(
                pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
            )


def pytest_collection_finish():
    _compilations.collecting = False
    # What is imported stays, and most of what tracing makes is kept: neither is garbage to seek.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def compilations():
    return _compilations


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """Drops a module's programs: all kept fill gigabytes, which slow each garbage collection."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def strict_promotion(request):
    """In the core neither a shape nor a dtype changes unless the code says so."""
    if request.path.parent not in _CORE:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


class Clock:
    """Stands all but still, and is put forward by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """In place of the clock by which steps are timed."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def unchecked_arrays(monkeypatch):
    """For tests of what a function itself says of arrays that do not fit."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="class")
def x64():
    """64-bit JAX, for a whole class: Hypothesis wants no fixture of a single test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float64", "float32"])
def precision(request):
    """Both precisions, each with the agreement that is asked of golden numbers."""
    with jax.enable_x64(request.param == "float64"):
        if request.param == "float64":
            yield Precision(jnp.float64, 1e-10)
        else:
            yield Precision(jnp.float32, 1e-5)
