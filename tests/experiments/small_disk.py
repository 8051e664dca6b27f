"""A disk of its own for a test, so small that a run fills it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs.

    Args:
        path: where it is found.
        prefix: of commands that mount.
        mounted_at: what these know it as.
    """

    def __init__(self, path: Path, prefix: tuple[str, ...], mounted_at: Path):
        self.path, self._prefix, self._mounted_at = path, prefix, mounted_at

    def remount(self, options: str) -> None:
        """Changes its size, or whether it can be written to."""
        mount = ["mount", "-o", f"remount,{options}", str(self._mounted_at)]
        subprocess.run([*self._prefix, *mount], check=True)


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk]:
    """Mounts a tmpfs on an empty directory, for all to see or in a namespace of its own.

    A test that may do neither is skipped.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() == 0 and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0:
        try:
            yield SmallDisk(place, (), place)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        return
    script = f"{' '.join(mount)} && echo mounted && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("neither mount nor unshare is allowed here")
        seen = Path(f"/proc/{holder.pid}/root{place}")
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--mount")
        yield SmallDisk(seen, (*enter, "--preserve-credentials"), place)
    finally:
        holder.kill()
        holder.communicate()
