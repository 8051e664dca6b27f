"""A page about finished runs: `python -m experiments.report RUN...`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from experiments import command_line
from experiments.flags import POSITIONAL
from jaxlt.errors import UsageError


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
    from experiments.report.document import write_report

    shown = {"predictions": arguments.predictions, "gallery": arguments.gallery}
    runs = [path.resolve() for path in arguments.run]
    alike = write_report(runs, arguments.output, arguments.dataset, **shown)
    command_line.say_next(
        f"python3 -m experiments.flatness --checkpoint {shlex.join(alike[:2])}",
        f"python3 -m experiments.predict {shlex.quote(alike[0])} IMAGE...",
    )


if __name__ == "__main__":
    command_line.run(main)
