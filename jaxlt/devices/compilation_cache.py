"""Compiled programs kept on disk, so that a second run starts without compiling."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import jax

_logger = logging.getLogger(__name__)

# JAX keeps by default what took a second to compile; the step of an MLP takes less, single
# operations outside a step less still.
_MIN_COMPILE_SECONDS = 0.2


def enable_compilation_cache() -> None:
    """Turns on JAX's persistent compilation cache under the user's cache directory.

    Programs lie in `jaxlt/xla` under $XDG_CACHE_HOME, or ~/.cache without it. Nothing changes
    where JAX's own settings choose another directory (`jax_compilation_cache_dir`) or no cache
    (an empty directory, or `jax_enable_compilation_cache` false), be it in the environment or in
    `jax.config`. A directory that cannot be written costs a warning and the cache, no more. To be
    called before the programs are compiled.
    """
    chosen = _setting("jax_compilation_cache_dir") is not None
    if chosen or not _setting("jax_enable_compilation_cache"):
        return
    try:
        directory = _user_cache() / "jaxlt" / "xla"
        _require_writable(directory)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        _logger.warning("compiled programs are not kept for the next run: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def _setting(name: str) -> Any:
    return getattr(jax.config, name)  # an attribute that exists at run time alone


def _user_cache() -> Path:
    """Returns the user's cache directory by the XDG rules, which void a relative path."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return configured if configured.is_absolute() else Path.home() / ".cache"


def _require_writable(directory: Path) -> None:
    """Creates a directory and a file in it; raises OSError where either cannot be done."""
    # Whoever may write there could have this user run what he likes.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        pass
