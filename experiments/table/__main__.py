"""Trains and renders one of the tables, see `jaxlt/recipes/named/tables.py`."""

import dataclasses
from pathlib import Path
from textwrap import shorten
from typing import Annotated

from tabulate import tabulate

from experiments import command_line
from experiments.flag_refusals import nearest
from experiments.flags import POSITIONAL
from experiments.table.plan import NO_CHANGES, Changes, plan_table
from experiments.table.program import Options, make_table
from jaxlt import UsageError
from jaxlt.recipes.named.tables import TABLES

_WIDTH = 104


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    name: Annotated[str, POSITIONAL, " ".join] = ""
    """Which table, in front of all flags."""
    list: Annotated[str, " ".join] | None = None
    """Print the tables, or the keys of the rows and columns of one, and train nothing."""
    workdir: Path | None = None
    """Directory of the runs, RECIPE/seedN, and of the table; none for runs/table_NAME."""
    rows: tuple[str, ...] = ()
    """Keys of the rows to make, none for all; see --list NAME."""
    columns: tuple[str, ...] = ()
    """Keys of the columns to make, none for all."""
    changes: Changes = NO_CHANGES
    options: Options = Options()  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, then lists keys, or trains what is missing, prints and saves the table."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.table",
        "Trains the recipes of a table with several seeds, goes on where it was stopped, and "
        "renders their accuracies beside the published ones.",
    )
    if arguments.list is not None:
        _list(arguments.list or arguments.name)
        return
    _check(arguments.name)
    plan = plan_table(TABLES[arguments.name], arguments.rows, arguments.columns, arguments.changes)
    make_table(plan, arguments.workdir or Path(f"runs/table_{arguments.name}"), arguments.options)


def _list(name: str) -> None:
    if not name:
        rows = [(key, shorten(layout.title, _WIDTH)) for key, layout in TABLES.items()]
        print(tabulate(rows, ["table", "of"], tablefmt="simple"))
        command_line.say_next(f"python3 -m experiments.table --list {next(iter(TABLES))}")
        return
    _check(name)
    layout = TABLES[name]
    for kind, pairs in (("row", layout.rows), ("column", layout.columns)):
        keys = [(key, label) for label, key in pairs]
        print(tabulate(keys, [kind, "label"], tablefmt="simple"), end="\n\n")
    row, column = layout.rows[-1][1], layout.columns[0][1]
    command_line.say_next(f"python3 -m experiments.table {name} --rows {row} --columns {column}")


def _check(name: str) -> None:
    if name not in TABLES:
        near = nearest(name, list(TABLES))
        raise UsageError(f"name must be a table that --list prints, got {name or 'nothing'}{near}")


if __name__ == "__main__":
    command_line.run(main)
