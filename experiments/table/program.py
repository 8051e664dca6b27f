"""What programs that make tables share: their flags, the runs, the files."""

import dataclasses
import logging
from pathlib import Path
from typing import Annotated

import tyro

from experiments import command_line
from experiments.command_line import check_distinct
from experiments.execution import DEFAULT_EXECUTION, Execution
from experiments.table.plan import Plan
from jaxlt import UsageError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags about the runs of a table."""

    seeds: Annotated[command_line.Numbers, tyro.conf.arg(aliases=["--seed"])] = (0, 1, 2, 3, 4)
    """Seeds of parameters, data order and augmentation, one run of each recipe each. Ranges such
    as 0-4 are understood."""
    jobs: int = 1
    """Processes that train at the same time, one run each; they share cores and memory equally."""
    render_only: bool = False
    """Train nothing, render what is finished."""
    execution: tyro.conf.OmitArgPrefixes[Execution] = DEFAULT_EXECUTION


DEFAULT_OPTIONS = Options()


def make_table(plan: Plan, directory: Path, options: Options) -> None:
    """Trains what is missing of a table, then prints it and saves it three ways.

    Args:
        plan: of the table.
        directory: of the runs, each in `RECIPE/seedN`, and of `table.md`, `.csv` and `.png`.
        options: how to train.

    Raises:
        UsageError: an option is out of range, or as `train_missing`.
        Interrupted: as `train_missing`.
    """
    check_distinct("seed", options.seeds)
    if options.jobs < 1:
        raise UsageError(f"jobs must be at least 1, got {options.jobs}")
    from experiments.table.sweep import train_missing

    if not options.render_only:
        train_missing(
            plan.recipes,
            options.seeds,
            directory,
            jobs=options.jobs,
            execution=options.execution,
        )
    _render(plan, directory, options)


def _render(plan: Plan, directory: Path, options: Options) -> None:
    from experiments.code_version import code_version
    from experiments.table.picture import draw
    from experiments.table.render import format_markdown, write_csv
    from experiments.table.results import read_entries

    entries = read_entries(directory, plan, options.seeds)
    if not any(entry.values for entry in entries):
        raise UsageError(f"workdir {directory} must hold finished runs of the table, it holds none")
    table = format_markdown(plan, entries, options.seeds, code_version())
    (directory / "table.md").write_text(table + "\n")
    write_csv(directory / "table.csv", entries)
    draw(plan, entries, directory / "table.png")
    print(f"\n{table}\n")
    _logger.info("table.md, table.csv and table.png are in %s", directory)
