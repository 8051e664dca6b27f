"""How a program ends before its work begins: Ctrl-C among its imports, a package that is missing.

`python -m experiments.NAME` imports this module before any other. What it defines runs only where
something goes wrong; `experiments.command_line` has the endings of the work itself.
"""

import os
import signal
import sys
from types import FrameType, TracebackType

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

_interrupted = 0


def stop_at_once(signum: int, frame: FrameType | None) -> None:
    """Ends the process: among imports nothing is there to save."""
    # An exception would pass through imports that turn it into another, or lose it.
    os.write(2, f"{_stopped(signum)}\n".encode())
    os._exit(128 + signum)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, and remembers it where a library makes another error of it."""
    global _interrupted
    _interrupted = signum
    raise KeyboardInterrupt


def say_stopped() -> None:
    """Ends the program with the line and the status of the signal that interrupted it."""
    signum = _interrupted or signal.SIGINT
    print(_stopped(signum), file=sys.stderr)
    sys.exit(128 + signum)


def _stopped(signum: int) -> str:
    return f"stopped by {signal.Signals(signum).name}"


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
        say_stopped()
    line = missing_package(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


# As long as `python -m` looks for the module; not where a test or another program imports it.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = explain
    # Not where it is ignored, as SIGINT is in a shell's background jobs.
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(signum, stop_at_once)
