"""A page about finished runs: `python -m experiments.report RUN...`."""

import dataclasses
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from experiments import command_line
from experiments.flags import POSITIONAL
from jaxlt.errors import UsageError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    run: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Must be given: directories of finished runs, or such as runs/quickstart that hold some."""
    dataset: str | None = None
    """Where the runs' data are now, such as folder:DIR; none for where they were trained."""
    output: Path | None = None
    """The page; none for report.html in the directory that all of them are in, for one in it."""
    predictions: bool = True
    """Load networks and images of the best runs, for confusion matrices and mistakes."""
    gallery: bool = True
    """Show the mistakes that a network is surest of, with their images embedded."""


def main() -> None:
    """Parses the flags, reads the runs and writes the page."""
    arguments = command_line.parse(
        Arguments,
        "experiments.report",
        "Prints which of finished runs are best, and writes one self-contained HTML page about "
        "them: summary, recipes, accuracy, curves, accuracy by class, confusion, calibration, "
        "sharpness, cost, and the pictures that experiments.flatness, experiments.landscape and "
        "experiments.hessian drew.",
    )
    if not arguments.run:
        raise UsageError(
            "RUN must be a finished run's directory or one that holds some, got nothing; give it "
            "as in python3 -m experiments.report runs/quickstart"
        )
    shown = {"predictions": arguments.predictions, "gallery": arguments.gallery}
    runs = [path.resolve() for path in arguments.run]
    alike = write_report(runs, arguments.output, arguments.dataset, **shown)
    command_line.say_next(
        f"python3 -m experiments.flatness --checkpoint {shlex.join(alike[:2])}",
        f"python3 -m experiments.predict {shlex.quote(alike[0])} IMAGE...",
    )


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
    from experiments.report.rows import read_runs, rows_of

    runs = read_runs(paths, dataset)
    root = paths[0] if len(paths) == 1 else Path(os.path.commonpath([p.parent for p in paths]))
    output = output or root / "report.html"
    _check_writable(output)
    from experiments.report.page import render
    from experiments.report.sections import sections_of
    from experiments.report.summary import all_sentences
    from jaxlt.devices.backends import enable_compilation_cache

    rows = rows_of(runs, root)
    learned = dict.fromkeys(row.learned for row in rows)
    if len(learned) > 1:
        names = ", ".join(dict.fromkeys(one.dataset for one in learned))
        _logger.warning("runs learned different classes or images, so compare with care: %s", names)
    members = f"{len(runs)} finished run{'s' if len(runs) > 1 else ''}"
    introduction = (
        f"{members} in {len(rows)} row{'s' if len(rows) > 1 else ''}. Runs whose recipes are "
        "equal but for the seed are members of one row."
    )
    enable_compilation_cache()
    sections = sections_of(rows, root, **shown)
    _write(output, render(f"Report on {root.name}", introduction, sections))
    print(*all_sentences(rows), sep="\n")
    _logger.info("written to %s", output)
    return [str(row.runs[0].path) for row in rows if row.learned == rows[0].learned]


def _check_writable(output: Path) -> None:
    from experiments.loaded_runs import unwritable

    obstacle = unwritable(output.absolute().parent)
    if output.is_dir() or obstacle is not None:
        found = (
            "it is a directory" if output.is_dir() else f"{obstacle} is not a writable directory"
        )
        raise UsageError(f"output {output} must be a file that can be written, {found}")


def _write(output: Path, page: str) -> None:
    partial = output.with_name(f"{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # What UTF-8 cannot say came from a damaged file.
        partial.write_bytes(page.encode(errors="replace"))
        partial.replace(output)
    except OSError as error:
        need = f"a file that can be written: {error.strerror}"
        raise UsageError(f"output {output} must be {need}") from error


if __name__ == "__main__":
    command_line.run(main)
