"""Clutter that another library would take for images."""

import os
from pathlib import Path

from jaxlt.data.sources.image_files import is_clutter


def clutter_directory(directory: Path) -> Path | None:
    """Returns a directory below one that is clutter, of a name without `.` or `__` in front.

    `datasets` passes over those with them. None says that there is no other.
    """
    for place, folders, _ in os.walk(directory):
        folders[:] = [name for name in sorted(folders) if not name.startswith((".", "__"))]
        if found := next((name for name in folders if is_clutter(name)), None):
            return Path(place) / found
    return None
