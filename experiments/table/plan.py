"""What a table shows: the recipe of each cell."""

import dataclasses
from collections.abc import Sequence

from experiments import parsing
from experiments.command_line import check_distinct, chosen
from experiments.presentation import MEASURES
from jaxlt import UsageError
from jaxlt.recipes.data import source
from jaxlt.recipes.methods import Method
from jaxlt.recipes.named import PUBLISHED, RECIPES, Published
from jaxlt.recipes.named.tables import Layout
from jaxlt.recipes.named.vary import vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import Recipe

SECONDS = "seconds"
"""The measure of a run that is no accuracy: seconds of training."""


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
        compares_methods: whether the rows are methods on the same images. Then seconds of training
            stand beside the accuracies, and each class's accuracy in a picture of its own.
    """

    title: str
    cells: tuple[Cell, ...]
    by_group: bool
    notes: tuple[str, ...] = ()
    comparable: bool = True
    compares_methods: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """Numbers that each cell shows: accuracies, and `SECONDS`."""
        accuracies = tuple(MEASURES) if self.by_group else ("accuracy",)
        return (*accuracies, SECONDS) if self.compares_methods else accuracies

    @property
    def corner(self) -> str:
        """What stands above the labels of the rows."""
        return "method" if self.compares_methods else ""

    @property
    def decimals(self) -> int:
        """Of the numbers."""
        return 1 if self.compares_methods else 2

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Every recipe once, by name."""
        return {cell.name: cell.recipe for cell in self.cells}


@dataclasses.dataclass(frozen=True)
class Changes:
    """What the recipes of a table are run with in place of their own."""

    source: str | None = None
    """Source of the images: digits, idx:DIR, tfds:NAME, folder:DIR or list:ROOT,LISTS."""
    network: str | None = None
    """Network, as --network of cifar_lt takes it, such as mlp or resnet32."""
    epochs: int | None = None
    """Epochs of the first stage; all else that is given in epochs is scaled by the same factor."""
    evaluation_epochs: int | None = None
    """Epochs between evaluations."""

    def of(self, recipe: Recipe) -> Recipe:
        """Returns the changed recipe.

        Raises:
            UsageError: a value is none that a recipe can have.
        """
        if self.epochs is not None:
            if self.epochs < 1:
                raise UsageError(f"epochs must be at least 1, got {self.epochs}")
            recipe = recipe.shortened(self.epochs)
        if self.source is not None:
            recipe = vary(recipe, source=source(self.source))
        if self.network is not None:
            recipe = parsing.parse(recipe, ["--network", self.network])
        if self.evaluation_epochs is not None:
            changed = recipe.evaluation.replace(epochs=self.evaluation_epochs)
            recipe = recipe.replace(evaluation=changed)
        return recipe

    def note(self, *, published: bool) -> tuple[str, ...]:
        """Returns a line about changes that no reader of the numbers may miss, if there are any.

        Args:
            published: whether published numbers stand beside them.
        """
        values = {"source": self.source, "network": self.network, "epochs": self.epochs}
        given = [f"{name} {value}" for name, value in values.items() if value is not None]
        if not given:
            return ()
        others = "; the published numbers are of the papers' data and networks" if published else ""
        return (f"Run with {', '.join(given)} in place of the recipes' own{others}.",)


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


def plan_methods(title: str, base: Recipe, methods: Sequence[Method], names: Sequence[str]) -> Plan:
    """Lays out a comparison: a row for each of some methods, all else being the same.

    Args:
        title: of the table.
        base: recipe that the methods share.
        methods: those that there are.
        names: of those to keep, as flags call them.

    Raises:
        UsageError: there is no such method, or none or one twice is named.
    """
    check_distinct("method", names)
    some = chosen("method", {part_name(method): method for method in methods}, names)
    cells = [Cell(one.label, "", name, vary(base, method=one)) for name, one in some.items()]
    return Plan(title, tuple(cells), by_group=True, compares_methods=True)


def _chosen(
    kind: str, all_of_them: tuple[tuple[str, str], ...], keys: tuple[str, ...]
) -> list[tuple[str, str]]:
    known = [key for _, key in all_of_them]
    for key in keys:
        if key not in known:
            raise UsageError(f"{kind} {key!r} is unknown, it must be one of {', '.join(known)}")
    return [pair for pair in all_of_them if not keys or pair[1] in keys]
