"""A run of a table in a process of its own: takes its share of the cores, then is `cifar_lt`."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Reads the parent's process id and the cores from the command line; the rest are flags."""
    parent, cores, *flags = sys.argv[1:]
    # Who kills the parent may start another one, which trains in the same directories.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(128 + signal.SIGTERM)
    os.sched_setaffinity(0, map(int, cores.split(",")))
    os.execv(sys.executable, [sys.executable, "-m", "experiments.cifar_lt", *flags])


if __name__ == "__main__":
    main()
