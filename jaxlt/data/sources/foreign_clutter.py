"""Files that another library would take for images, or would leave out without a word."""

import glob
import os
from collections import Counter
from pathlib import Path

from jaxlt.data.sources.image_files import images_below, is_clutter, log_passed_over


def files_without_clutter(directory: Path) -> dict[str, list[str]] | None:
    """Returns the files of each part that `datasets` finds in a directory, but for clutter.

    None says that it may be handed the directory: the name is no pattern, and there is no clutter
    but what it passes over itself, names with `.` or `__` in front.
    """
    root = str(directory.absolute())
    pattern = glob.escape(root)
    if pattern == root and not _has_clutter(directory):
        return None
    from datasets import data_files

    patterns = data_files.get_data_patterns(pattern)
    found = data_files.DataFilesDict.from_patterns(patterns, pattern)
    kept = {
        str(part): [
            glob.escape(file)
            for file in files
            if not any(map(is_clutter, Path(file).relative_to(root).parts))
        ]
        for part, files in found.items()
    }
    return {part: files for part, files in kept.items() if files}


def _has_clutter(directory: Path) -> bool:
    for _, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        if any(is_clutter(name) for name in (*folders, *files) if not name.startswith(".")):
            return True
    return False


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
