import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

from jaxlt.devices.backends import enable_compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)
# Compiles a program, and says how many came from the cache.
PROGRAM = """
import json
import jax
import jax.numpy as jnp
from jaxlt.devices.backends import enable_compilation_cache

enable_compilation_cache()

def loss(kernels, x):
    for kernel in kernels:
        x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")) + x
    return jnp.square(x).sum()

kernels = [jax.random.normal(jax.random.key(i), (4, 4, 3, 3)) for i in range(16)]
x = jnp.ones((2, 4, 8, 8))
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
gradient = jax.jit(jax.grad(loss)).lower(kernels, x).compile()
bits = b"".join(leaf.tobytes() for leaf in gradient(kernels, x)).hex()
print(json.dumps([events.count("/jax/compilation_cache/cache_hits"), bits]))
"""


def _setting(name):
    return getattr(jax.config, name)


@pytest.fixture(autouse=True)
def settings():
    before = {name: _setting(name) for name in SETTINGS}
    for name, value in zip(SETTINGS, (None, True, 1.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def _run_program(cache_home):
    quick = "jax_disable_most_optimizations"
    environment = {k: v for k, v in os.environ.items() if k.lower() not in (*SETTINGS, quick)}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **environment,
            "XDG_CACHE_HOME": str(cache_home),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return *json.loads(finished.stdout), finished.stderr


def test_a_second_process_loads_what_the_first_compiled_bit_for_bit(tmp_path):
    hits, bits, _ = _run_program(tmp_path)
    hits_again, bits_again, stderr = _run_program(tmp_path)
    assert hits == 0 < hits_again
    assert bits == bits_again
    assert stderr == ""
    assert (tmp_path / "jaxlt" / "xla").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("cache_home", [None, "", "relative"])
def test_the_users_cache_directory_is_that_of_xdg(cache_home, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if cache_home is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", cache_home)
    enable_compilation_cache()
    directory = tmp_path / ".cache" / "jaxlt" / "xla"
    assert directory.is_dir()
    assert _setting("jax_compilation_cache_dir") == str(directory)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_compilation_cache_dir", "/elsewhere"),
        ("jax_compilation_cache_dir", ""),
        ("jax_enable_compilation_cache", False),
    ],
)
def test_what_the_user_chose_by_jaxs_settings_stands(name, value, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(name, value)
    before = [_setting(setting) for setting in SETTINGS]
    enable_compilation_cache()
    assert [_setting(setting) for setting in SETTINGS] == before
    assert not list(tmp_path.iterdir())


def test_an_unwritable_directory_costs_one_line(tmp_path, monkeypatch, caplog):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    enable_compilation_cache()
    assert _setting("jax_compilation_cache_dir") is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "\n" not in record.getMessage()
    assert str(in_the_way) in record.getMessage()
    assert record.exc_info is None


def run(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def test_importing_the_package_imports_no_tensorflow():
    result = run(
        """
        import sys
        import numpy as np
        import jaxlt.data
        from jaxlt.data import long_tailed_split, select_images
        select_images(np.zeros(3, int), (2,), rule="shuffled")
        heavy = {"tensorflow", "tensorflow_datasets", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    assert result.returncode == 0, result.stderr


def test_tensorflow_sees_no_gpu_and_says_nothing():
    result = run(
        """
        from jaxlt.devices.backends import import_tensorflow
        tf = import_tensorflow()
        assert tf.config.get_visible_devices("GPU") == []
        import tensorflow
        assert tensorflow is tf
        print(int(tf.constant(1) + 1))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "2\n"
