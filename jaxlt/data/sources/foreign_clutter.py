"""Files that another library would take for images, or would leave out without a word."""

import os
from collections import Counter
from pathlib import Path

from jaxlt.data.sources.image_files import images_below, is_clutter, log_passed_over


def clutter_directory(directory: Path) -> Path | None:
    """Returns a directory below one that is clutter, of a name without `.` or `__` in front.

    `datasets` passes over those with them. None says that there is no other.
    """
    for place, folders, _ in os.walk(directory):
        folders[:] = [name for name in sorted(folders) if not name.startswith((".", "__"))]
        if found := next((name for name in folders if is_clutter(name)), None):
            return Path(place) / found
    return None


def say_left_out(directory: Path, rows: int) -> None:
    """Says in the log what below a directory of images is not among the rows that are read of it.

    Args:
        directory: of images, with a file `metadata` or not; of one of tables nothing is said.
        rows: how many images the library found.
    """
    found = images_below(directory)
    if found.paths:
        described = Counter(path.suffix for path in directory.rglob("metadata.*"))
        lost = Counter({"image in no part": max(len(found.paths) - rows, 0)})
        log_passed_over(directory, found.passed_over - described + lost)
