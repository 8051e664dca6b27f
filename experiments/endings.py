"""How a program ends before its work begins: Ctrl-C among its imports, a package that is missing.

`python -m experiments.NAME` imports this module before any other. What it defines runs only where
something goes wrong; `experiments.command_line` has the endings of the work itself.
"""

import os
import signal
import sys
from types import FrameType, TracebackType

STOPPED = "stopped by SIGINT"
STOPPED_STATUS = 128 + signal.SIGINT
_EXTRAS = {
    "datasets": "hf",
    "huggingface_hub": "clip",
    "imagecorruptions": "ood",
    "jax2onnx": "export",
    "onnx": "onnx",
    "onnxruntime": "export",
    "tokenizers": "clip",
    "torch": "peer",
}
"""Of `pyproject.toml`, by the package that needs it; all others are in `train`."""
_OWN = ("experiments", "jaxlt", "tests")

_interrupted = False


def stop_at_once(signum: int, frame: FrameType | None) -> None:
    """Ends the process: among imports nothing is there to save."""
    # An exception would pass through imports that turn it into another, or lose it.
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(STOPPED_STATUS)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, and remembers it where a library makes another error of it."""
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def missing_package(error: BaseException) -> str | None:
    """Returns the line for a package that is not installed, None for any other error."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    top = (name or "").partition(".")[0]
    if not top or top in _OWN or top in sys.stdlib_module_names:
        return None
    extra = _EXTRAS.get(top, "train")
    return (
        f"{name} must be installed, got none; it comes with the extra {extra}: "
        f"python3 -m pip install -e '.[{extra}]'"
    )


def explain(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Prints one line and ends the program, or the traceback of what is a fault of its own."""
    if _interrupted or isinstance(error, KeyboardInterrupt):
        print(STOPPED, file=sys.stderr)
        sys.exit(STOPPED_STATUS)
    line = missing_package(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


# As long as `python -m` looks for the module; not where a test or another program imports it.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = explain
    # Not where SIGINT is ignored, as that of a shell's background jobs is.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
