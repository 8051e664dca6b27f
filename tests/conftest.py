"""Fixtures, and strictness for the tests of the core."""

import gc
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

_CORE = {Path(__file__).parent / name for name in ("batch", "losses", "methods", "sharpness")}

# Neither this process nor those that tests start read or fill the user's compilation cache, and
# compiling is what small problems wait for: the same HLO, less work by LLVM.
for _name, _value in (("enable_compilation_cache", False), ("disable_most_optimizations", True)):
    os.environ[f"JAX_{_name.upper()}"] = str(_value).lower()
    jax.config.update(f"jax_{_name}", _value)
_CACHE = {
    "enable_compilation_cache": True,
    "persistent_cache_min_compile_time_secs": 0.05,
    "persistent_cache_min_entry_size_bytes": -1,
}


class Precision(NamedTuple):
    dtype: type
    tolerance: float


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="kills of a training process")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent in _CORE:
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture(autouse=True, scope="session")
def compiled_once(tmp_path_factory):
    """What one module has compiled the next ones of the same process find."""
    place = tmp_path_factory.getbasetemp() / "compiled"
    for name, value in {**_CACHE, "compilation_cache_dir": str(place)}.items():
        jax.config.update(f"jax_{name}", value)
    # JAX decides at its first compilation whether there is a cache, and collection compiles.
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """Programs kept for ever fill gigabytes, through which each garbage collection must go."""
    yield
    jax.clear_caches()
    gc.collect()


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
