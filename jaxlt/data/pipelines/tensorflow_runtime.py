"""The one door through which jaxlt reaches TensorFlow."""

import contextlib
import functools
import os
from typing import Any


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow for input pipelines on the CPU and hides every GPU from it.

    Call it inside functions that build a pipeline, never at module import. The import takes
    seconds, and training steps, losses and models need none of it.
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
