"""What the libraries below are told: JAX where to keep programs, TensorFlow to leave GPUs alone."""

import contextlib
import functools
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
    """Turns on JAX's persistent compilation cache, before the programs are compiled.

    Programs lie in `jaxlt/xla` under $XDG_CACHE_HOME, or ~/.cache without it. Nothing changes
    where JAX's own settings choose another directory (`jax_compilation_cache_dir`) or no cache
    (an empty directory, or `jax_enable_compilation_cache` false), be it in the environment or in
    `jax.config`. A directory that cannot be written costs a warning and the cache, no more.
    """
    config: Any = jax.config  # has its settings at run time alone
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    try:
        directory = user_cache("xla")
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        _logger.warning("compiled programs are not kept for the next run: %s", error)
        return
    config.update("jax_compilation_cache_dir", str(directory))
    config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def compiler_options() -> dict[str, Any]:
    """Returns XLA's options for training steps on the default backend; none but on a CPU.

    There optimization barriers hold, which `jaxlt.models.Conv` and `jax.checkpoint` need, and
    convolutions go to Eigen, not to YNNPACK, which takes longer for their gradients.

    Example:
        >>> import jax, jaxlt.models as models
        >>> step = jax.jit(lambda x: 2 * x, compiler_options=models.compiler_options())
        >>> float(step(3.0))
        6.0
    """
    if jax.default_backend() != "cpu":
        return {}
    # XLA's default without individual convolutions.
    by_ynnpack = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    return {
        "xla_disable_hlo_passes": "cse_barrier_expander",
        "xla_cpu_experimental_ynn_fusion_type": by_ynnpack,
    }


def user_cache(name: str) -> Path:
    """Makes `jaxlt/NAME` in the user's cache; OSError or RuntimeError where that cannot be."""
    # XDG's rules void a relative path.
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = home if home.is_absolute() else Path.home() / ".cache"
    directory = home / "jaxlt" / name
    # Whoever may write there could have this user run what he likes.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow for input pipelines on the CPU and hides every GPU from it.

    The import takes seconds: call it inside functions that build a pipeline, never at module level.
    """
    # Its warnings are of images that cannot be decoded, which we name ourselves.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX sets 1 where it is not set.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    # Pipelines gain nothing from oneDNN, and TensorFlow announces it in every log.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    # TensorFlow takes a GPU's whole memory when it first sees one, and JAX needs that memory.
    # Where the caller has started TensorFlow before us, its devices are the caller's choice.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf
