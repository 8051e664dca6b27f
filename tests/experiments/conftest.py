"""Fixtures for the tests of the programs."""

import os

import pytest


@pytest.fixture(scope="session")
def user_environment(tmp_path_factory):
    """As a user has it: optimized programs, of which later processes find the earlier ones'."""
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
        "XLA_FLAGS": "",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture
def num_kills(request):
    """How often a process is killed: `-m soak --kills 50 tests/experiments/test_kill.py`."""
    return request.config.getoption("kills")
