"""What programs that make tables share: their flags, the runs, the files."""

import dataclasses
import logging
from pathlib import Path

from experiments import command_line
from experiments.command_line import check_distinct
from experiments.table.plan import Plan
from jaxlt import UsageError
from jaxlt.recipes.execution import DEFAULT_EXECUTION, Execution

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags about the runs of a table."""

    seeds: command_line.Numbers = (0, 1, 2, 3, 4)
    """Seeds of parameters, data order and augmentation, one run of each recipe each. Ranges such
    as 0-4 are understood."""
    jobs: int = 1
    """Processes that train at the same time, one run each; they share cores and memory equally."""
    render_only: bool = False
    """Train nothing, render what is finished."""
    execution: Execution = DEFAULT_EXECUTION


DEFAULT_OPTIONS = Options()


def make_table(plan: Plan, directory: Path, options: Options) -> None:
    """Trains what is missing of a table, then prints it and saves it three ways.

    Args:
        plan: of the table.
        directory: of the runs, each in `RECIPE/seedN`, and of `table.md`, `.csv` and `.png`; of
            methods that are compared also of `results.json` and `accuracy_by_class.png`.
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
    runs = [f"{directory / name}/seed{options.seeds[0]}" for name in list(plan.recipes)[:2]]
    command_line.say_next(
        f"python3 -m experiments.report {directory}",
        f"python3 -m experiments.flatness --checkpoint {' '.join(runs)}",
    )


def _render(plan: Plan, directory: Path, options: Options) -> None:
    from experiments.table.picture import draw
    from experiments.table.render import format_markdown, write_csv
    from experiments.table.results import read_entries
    from jaxlt.recipes.code_version import code_version

    entries = read_entries(directory, plan, options.seeds)
    if not any(entry.values for entry in entries):
        raise UsageError(f"workdir {directory} must hold finished runs of the table, it holds none")
    table = format_markdown(plan, entries, options.seeds, code_version())
    (directory / "table.md").write_text(table + "\n")
    write_csv(directory / "table.csv", entries)
    draw(plan, entries, directory / "table.png")
    written = ["table.md", "table.csv", "table.png"]
    if plan.compares_methods:
        from experiments.table.by_class import write_by_class

        written += write_by_class(plan, directory, options.seeds)
    print(f"\n{table}\n")
    _logger.info("%s and %s are in %s", ", ".join(written[:-1]), written[-1], directory)
