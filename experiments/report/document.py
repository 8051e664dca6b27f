"""The page about runs, from their directories to a file."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.presentation import printable
from experiments.report.page import render
from experiments.report.rows import read_runs, rows_of
from experiments.report.sections import sections_of
from experiments.report.summary import all_sentences
from jaxlt.devices.backends import enable_compilation_cache
from jaxlt.errors import counted
from jaxlt.files.whole_file import check_can_be_written, whole_file

_logger = logging.getLogger(__name__)


def write_report(
    paths: Sequence[Path], output: Path | None = None, dataset: str | None = None, **shown: bool
) -> list[str]:
    """Writes the page about runs, and returns the directories of those like the first.

    Args:
        paths: absolute, of finished runs or of directories that hold some.
        output: the page; None for `report.html` where all of them are.
        dataset: where the runs' images are now; None for where they were.
        **shown: as of `experiments.report.sections.sections_of`.
    """
    runs = read_runs(paths, dataset)
    root = paths[0] if len(paths) == 1 else Path(os.path.commonpath([p.parent for p in paths]))
    output = output or root / "report.html"
    check_can_be_written(output, "output", makes_directory=True)
    rows = rows_of(runs, root)
    learned = dict.fromkeys(row.learned for row in rows)
    if len(learned) > 1:
        names = ", ".join(dict.fromkeys(one.dataset for one in learned))
        _logger.warning("runs learned different classes or images, so compare with care: %s", names)
    introduction = (
        f"{counted(len(runs), 'finished run')} in {counted(len(rows), 'row')}. Runs whose recipes "
        "are equal but for the seed are members of one row."
    )
    enable_compilation_cache()
    sections = sections_of(rows, root, **shown)
    output.parent.mkdir(parents=True, exist_ok=True)
    page = render(f"Report on {printable(root.name)}", introduction, sections)
    with whole_file(output, "output") as file:
        # What UTF-8 cannot say came from a damaged file.
        file.write(page.encode(errors="replace"))
    print(*all_sentences(rows), sep="\n")
    _logger.info("written to %s", output)
    return [str(row.runs[0].path) for row in rows if row.learned == rows[0].learned]
