"""A page about finished runs: `python -m experiments.report RUN...`."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from experiments import command_line
from experiments.flag_words import POSITIONAL
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    from experiments.report.rows import SeedsRow

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    run: Annotated[tuple[Path, ...], POSITIONAL]
    """Directories of finished runs, or directories such as runs/quickstart that hold some."""
    output: Path | None = None
    """The page; None for report.html in the directory that all of them are in, for one in it."""


def main() -> None:
    """Parses the flags, reads the runs and writes the page."""
    arguments = command_line.parse(
        Arguments,
        "experiments.report",
        "Writes one self-contained HTML page about finished runs: recipes, accuracy, curves, "
        "accuracy by class, confusion of head and tail, calibration, sharpness, cost, and the "
        "pictures that experiments.flatness, experiments.landscape and experiments.hessian drew.",
    )
    from experiments.report.reading import read_runs

    paths = [path.resolve() for path in arguments.run]
    runs = read_runs(paths)
    root = paths[0] if len(paths) == 1 else Path(os.path.commonpath([p.parent for p in paths]))
    output = arguments.output or root / "report.html"
    _check_writable(output)
    from experiments.report.page import render
    from experiments.report.rows import rows_of
    from experiments.report.sections import sections_of

    rows = rows_of(runs, root)
    _warn_of_other_classes(rows)
    members = f"{len(runs)} finished run{'s' if len(runs) > 1 else ''}"
    introduction = (
        f"{members} in {len(rows)} row{'s' if len(rows) > 1 else ''}. Runs whose recipes are "
        "equal but for the seed are members of one row."
    )
    page = render(f"Report on {root.name}", introduction, sections_of(rows, root))
    _write(output, page)
    _logger.info("written to %s", output)


def _warn_of_other_classes(rows: list["SeedsRow"]) -> None:
    names = list(dict.fromkeys(row.learned.dataset for row in rows))
    if len({row.learned for row in rows}) > 1:
        _logger.warning(
            "runs learned different classes or images, so compare with care: %s", ", ".join(names)
        )


def _check_writable(output: Path) -> None:
    parents = output.absolute().parents
    existing = next(path for path in parents if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    if not writable or output.is_dir():
        found = (
            "it is a directory" if output.is_dir() else f"{existing} is not a writable directory"
        )
        raise UsageError(f"output {output} must be a file that can be written, {found}")


def _write(output: Path, page: str) -> None:
    # What UTF-8 cannot say came from a damaged file.
    contents = page.encode(errors="replace")
    partial = output.with_name(f"{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(contents)
        partial.replace(output)
    except OSError as error:
        raise UsageError(
            f"output {output} must be a file that can be written: {error.strerror}"
        ) from error


if __name__ == "__main__":
    command_line.run(main)
