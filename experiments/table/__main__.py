"""Trains and renders one of the tables, see `experiments/recipes/tables.py`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from experiments import command_line
from experiments.recipes.tables import TABLES
from experiments.table.plan import NO_CHANGES, Changes, plan_table
from experiments.table.program import DEFAULT_OPTIONS, Options, make_table

if TYPE_CHECKING:
    TableName = str
else:
    TableName = Literal[*TABLES]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    name: tyro.conf.Positional[TableName]
    """Which table."""
    workdir: Path | None = None
    """Directory of the runs, RECIPE/seedN, and of the table; None for runs/table_NAME."""
    rows: tuple[str, ...] = ()
    """Keys of the rows to make, none for all."""
    columns: tuple[str, ...] = ()
    """Keys of the columns to make, none for all."""
    changes: tyro.conf.OmitArgPrefixes[Changes] = NO_CHANGES
    options: tyro.conf.OmitArgPrefixes[Options] = DEFAULT_OPTIONS


def main() -> None:
    """Parses the flags, trains what is missing, and prints and saves the table."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.table",
        "Trains the recipes of a table with several seeds, goes on where it was stopped, and "
        "renders their accuracies beside the published ones.",
    )
    plan = plan_table(TABLES[arguments.name], arguments.rows, arguments.columns, arguments.changes)
    make_table(plan, arguments.workdir or Path(f"runs/table_{arguments.name}"), arguments.options)


if __name__ == "__main__":
    command_line.run(main)
