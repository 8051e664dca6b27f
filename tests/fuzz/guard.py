"""What no reader may do, watched by Python's own audit events."""

import contextlib
import logging
import os
import sys
from pathlib import Path

_NEVER = {
    "exec",
    "compile",
    "import",
    "marshal.loads",
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "socket.connect",
    "ctypes.dlopen",
}
_LISTINGS = {"os.scandir", "os.listdir"}
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Violation(BaseException):
    """A reader did what it may not do; no `except Exception` must hide it."""


class _Watch:
    """The process's one audit hook: it cannot be removed, so it is switched on and off."""

    def __init__(self):
        self.root: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.root is not None and self._is_wrong(event, arguments):
            self.seen.append(f"{event} {arguments!r:.200}")

    def _is_wrong(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            return bool(flags & _WRITING) and self._is_outside(path)
        if event in _LISTINGS:
            return self._is_outside(arguments[0])
        if event in _CHANGES:
            # Below a directory that is open, and so was looked at before.
            return arguments[-1] == -1 and any(map(self._is_outside, arguments[:2]))
        return event in _NEVER

    def _is_outside(self, path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a file that is open already
        # Without links: whoever made the directory made those in it.
        absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        return self.root is not None and not Path(absolute).is_relative_to(self.root)


_watch: _Watch | None = None


@contextlib.contextmanager
def watched(root):
    """Raises `Violation` if the body runs code, connects, or writes or lists outside `root`."""
    global _watch
    _watch = _watch or _Watch()
    _watch.seen.clear()
    # A log that cannot be written prints stacks, for which Python parses lines of code.
    raises, logging.raiseExceptions = logging.raiseExceptions, False
    _watch.root = Path(root)
    try:
        yield
    finally:
        _watch.root = None
        logging.raiseExceptions = raises
    if _watch.seen:
        raise Violation("; ".join(_watch.seen))
