"""What a table shows: the recipe of each cell."""

import dataclasses

from experiments.presentation import MEASURES
from experiments.recipe import Recipe
from experiments.recipes import PUBLISHED, RECIPES, Published
from experiments.recipes.tables import Layout
from jaxlt import UsageError


@dataclasses.dataclass(frozen=True)
class Cell:
    """The place of a recipe in a table.

    Attributes:
        row: its label.
        column: its label.
        name: of the recipe and of the directory with its runs.
        recipe: what is run.
        stage: whose last evaluation is shown; None for the run's.
        published: result of others, if there is one.
    """

    row: str
    column: str
    name: str
    recipe: Recipe
    stage: int | None = None
    published: Published | None = None

    @property
    def key(self) -> str:
        """Recipe and stage."""
        return self.name if self.stage is None else f"{self.name}@{self.stage}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A table before its numbers.

    Attributes:
        title: of the table.
        cells: those that are not empty, row by row.
        by_group: whether a cell is a whole row with the accuracies of many-, medium- and few-shot
            classes and of all; otherwise it is the accuracy of all.
        notes: to be printed below.
        comparable: whether the published numbers are of the same data and networks; where they are
            not, the picture leaves them out.
    """

    title: str
    cells: tuple[Cell, ...]
    by_group: bool
    notes: tuple[str, ...] = ()
    comparable: bool = True

    @property
    def measures(self) -> tuple[str, ...]:
        """Accuracies that each cell shows."""
        return tuple(MEASURES) if self.by_group else ("accuracy",)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Every recipe once, by name."""
        return {cell.name: cell.recipe for cell in self.cells}


@dataclasses.dataclass(frozen=True)
class Changes:
    """What the recipes of a table are run with in place of their own."""

    dataset: str | None = None
    """Source of the images."""
    model: str | None = None
    """Network."""
    epochs: int | None = None
    """Epochs of the first stage; all else that is given in epochs is scaled by the same factor."""
    eval_epochs: int | None = None
    """Epochs between evaluations."""

    def of(self, recipe: Recipe) -> Recipe:
        """Returns the changed recipe.

        Raises:
            UsageError: a number is out of range.
        """
        if self.epochs is not None:
            if self.epochs < 1:
                raise UsageError(f"epochs must be at least 1, got {self.epochs}")
            recipe = recipe.shortened(self.epochs)
        return dataclasses.replace(recipe, **self._given("dataset", "model", "eval_epochs"))

    def note(self, *, published: bool) -> tuple[str, ...]:
        """Returns a line about changes that no reader of the numbers may miss, if there are any.

        Args:
            published: whether published numbers stand beside them.
        """
        given = self._given("dataset", "model", "epochs")
        if not given:
            return ()
        text = ", ".join(f"{name} {value}" for name, value in given.items())
        others = "; the published numbers are of the papers' data and networks" if published else ""
        return (f"Run with {text} in place of the recipes' own{others}.",)

    def _given(self, *names: str) -> dict[str, object]:
        fields = {name: getattr(self, name) for name in names}
        return {name: value for name, value in fields.items() if value is not None}


NO_CHANGES = Changes()


def plan_table(
    layout: Layout,
    rows: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    changes: Changes = NO_CHANGES,
) -> Plan:
    """Fills a layout with the named recipes; places without a recipe stay empty.

    Args:
        layout: of the table.
        rows: keys of those to keep, none for all.
        columns: likewise.
        changes: to every recipe.

    Raises:
        UsageError: there is no such row or column, or no recipe in those chosen.
    """
    cells: list[Cell] = []
    for row, row_key in _chosen("row", layout.rows, rows):
        for column, column_key in _chosen("column", layout.columns, columns):
            name, stage = layout.cell(row_key, column_key)
            if name in RECIPES:
                # What is published is the result of the whole recipe.
                published = PUBLISHED.get(name) if stage is None else None
                recipe = changes.of(RECIPES[name])
                cells.append(Cell(row, column, name, recipe, stage, published))
    if not cells:
        chosen = f"rows {' '.join(rows) or '(all)'} and columns {' '.join(columns) or '(all)'}"
        raise UsageError(f"{chosen} must have a recipe in common, there is none")
    sources = dict.fromkeys(cell.published.source for cell in cells if cell.published)
    note = changes.note(published=bool(sources))
    cited = (f"Published in: {'; '.join(sources)}.",) if sources else ()
    return Plan(layout.title, tuple(cells), layout.by_group, note + cited, comparable=not note)


def _chosen(
    kind: str, all_of_them: tuple[tuple[str, str], ...], keys: tuple[str, ...]
) -> list[tuple[str, str]]:
    known = [key for _, key in all_of_them]
    for key in keys:
        if key not in known:
            raise UsageError(f"{kind} {key!r} is unknown, it must be one of {', '.join(known)}")
    return [pair for pair in all_of_them if not keys or pair[1] in keys]
