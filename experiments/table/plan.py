"""What a table shows: the recipe of each cell, and what is finished of it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments import parsing
from experiments.flag_refusals import nearest
from experiments.presentation import MEASURES
from jaxlt import UsageError
from jaxlt.recipes.data import Data
from jaxlt.recipes.named import PUBLISHED, RECIPES, Published, vary
from jaxlt.recipes.named.tables import TableLayout
from jaxlt.recipes.part import part_word
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.recorded import recorded_recipe
from jaxlt.recipes.sources import AnySource
from jaxlt.runs.reader import EvaluationRecord, RunReader
from jaxlt.runs.workdir import check_identity

_Value = TypeVar("_Value")

SECONDS = "seconds"  # of training, the measure that is no accuracy


@dataclasses.dataclass(frozen=True)
class Cell:
    """The place of a recipe in a table, by the labels of its row and column."""

    row: str
    column: str
    name: str
    """The recipe's, and its directory's."""
    recipe: Recipe
    stage: int | None = None
    """Whose last evaluation is shown; None for the run's."""
    published: Published | None = None

    @property
    def key(self) -> str:
        """Recipe and stage."""
        return self.name if self.stage is None else f"{self.name}@{self.stage}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A table before its numbers: those of its cells that are not empty, row by row."""

    title: str
    cells: tuple[Cell, ...]
    by_group: bool
    """Whether a cell is a whole row: accuracies of many-, medium-, few-shot classes, of all."""
    notes: tuple[str, ...] = ()
    comparable: bool = True
    """Whether published numbers are of the same data and networks, to be shown in the picture."""
    compares_methods: bool = False
    """Whether rows are methods on the same images, with their seconds and accuracies by class."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Numbers that each cell shows: accuracies, and `SECONDS`."""
        accuracies = tuple(MEASURES) if self.by_group else ("accuracy",)
        return (*accuracies, SECONDS) if self.compares_methods else accuracies

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Every recipe once, by name."""
        return {cell.name: cell.recipe for cell in self.cells}


@dataclasses.dataclass(frozen=True)
class Changes:
    """What the recipes of a table are run with in place of their own."""

    source: AnySource | None = None
    """Source of the images, as --data.source takes it."""
    network: str | None = None
    """Network, as --network of cifar_lt takes it, such as mlp or resnet32."""
    epochs: int | None = None
    """Epochs of the first stage; all else that is given in epochs is scaled by the same factor."""
    evaluation_epochs: int | None = None
    """Epochs between evaluations."""

    def of(self, recipe: Recipe) -> Recipe:
        """Returns the changed recipe; UsageError for a value that no recipe can have."""
        if self.epochs is not None:
            if self.epochs < 1:
                raise UsageError(f"epochs must be at least 1, got {self.epochs}")
            recipe = recipe.shortened(self.epochs)
        if self.source is not None:
            recipe = vary(recipe, source=self.source)
        if self.network is not None:
            recipe = parsing.parse(recipe, ["--network", self.network])
        if self.evaluation_epochs is not None:
            evaluation = recipe.evaluation.replace(epochs=self.evaluation_epochs)
            recipe = recipe.replace(evaluation=evaluation)
        return recipe

    def note(self, *, published: bool) -> tuple[str, ...]:
        """Returns a line about changes that no reader of the numbers may miss, if there are any."""
        source = self.source and part_word(self.source)
        values = {"source": source, "network": self.network, "epochs": self.epochs}
        given = [f"{name} {value}" for name, value in values.items() if value is not None]
        if not given:
            return ()
        others = "; the published numbers are of the papers' data and networks" if published else ""
        return (f"Run with {', '.join(given)} in place of the recipes' own{others}.",)


NO_CHANGES = Changes()


def plan_table(
    layout: TableLayout,
    rows: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    changes: Changes = NO_CHANGES,
) -> Plan:
    """Fills the rows and columns named by key, or all, with the recipes that there are."""
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
        shown = f"rows {' '.join(rows) or '(all)'} and columns {' '.join(columns) or '(all)'}"
        raise UsageError(f"{shown} must have a recipe in common, got none")
    sources = dict.fromkeys(cell.published.source for cell in cells if cell.published)
    note = changes.note(published=bool(sources))
    cited = (f"Published in: {'; '.join(sources)}.",) if sources else ()
    return Plan(layout.title, tuple(cells), layout.by_group, note + cited, comparable=not note)


def chosen(name: str, table: Mapping[Any, _Value], keys: Sequence[str]) -> dict[str, _Value]:
    """Returns the entries of a table that a flag, `name` and an s, lists, or raises UsageError."""
    for key in keys:
        if key not in table:
            near = nearest(key, list(table))
            raise UsageError(f"{name}s must be among {', '.join(table)}, got {key}{near}")
    return {key: table[key] for key in keys}


def _chosen(
    kind: str, pairs: tuple[tuple[str, str], ...], keys: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Returns the pairs of a label and a key that flags list by key, none for all, in order."""
    chosen(kind, {key: label for label, key in pairs}, keys)
    return [(label, key) for label, key in pairs if key in keys or not keys]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A number of a cell, and the versions of the code in order of use, by the finished seeds."""

    cell: Cell
    measure: str
    values: dict[int, float]
    """Accuracies in percent, NaN for a group without class; or seconds."""
    code: dict[int, tuple[str, ...]]

    @property
    def published(self) -> float | None:
        """The number of others, in percent."""
        return getattr(self.cell.published, self.measure, None)


def place_of_run(directory: Path, name: str, seed: int) -> Path:
    """Returns the directory of a run."""
    return directory / name / f"seed{seed}"


def finished_runs(
    directory: Path, name: str, recipe: Recipe, seeds: Sequence[int], *, compare: bool = False
) -> dict[int, RunReader]:
    """Finds the finished runs of a recipe; all that are begun must be its own, of equal images.

    If `compare`, or if its data are at another place, what they hold is compared.
    """
    paths = {seed: place_of_run(directory, name, seed) for seed in seeds}
    found = {seed: _begun(path, recipe, seed) for seed, path in paths.items()}
    begun = {seed: run for seed, run in found.items() if run is not None}
    finished = {seed: run for seed, run in begun.items() if run.result_file.exists()}
    for run in begun.values():
        _check_data(run, recipe, compare=compare)
    images = {seed: run.identity.get("images") for seed, run in begun.items()}
    if any(digest != next(iter(images.values())) for digest in images.values()):
        shown = ", ".join(f"seed{seed} has {digest}" for seed, digest in images.items())
        raise UsageError(f"runs in {directory / name} must be on the same images, {shown}")
    return finished


def read_entries(directory: Path, plan: Plan, seeds: Sequence[int]) -> list[Entry]:
    """Reads the numbers of a table, cell by cell, of `finished_runs`."""
    entries: list[Entry] = []
    for cell in plan.cells:
        runs = finished_runs(directory, cell.name, cell.recipe, seeds)
        shown = {seed: _evaluation(run, cell.stage) for seed, run in runs.items()}
        code = {seed: run.result.code for seed, run in runs.items()}
        for measure in plan.measures:
            unit = 1 if measure == SECONDS else 100
            values = {seed: unit * getattr(record, measure) for seed, record in shown.items()}
            entries.append(Entry(cell, measure, values, code))
    return entries


def _begun(path: Path, recipe: Recipe, seed: int) -> RunReader | None:
    """Opens the directory of a run, None if there is none yet; refuses what is not this run."""
    if not path.is_dir() or not any(path.iterdir()):
        return None
    run = RunReader(path)
    if not run.recipe_file.exists():
        raise UsageError(f"workdir {path} must be new, empty or a run's, got something else in it")
    # Which images a recipe selects is only known with its dataset, which nobody may have here.
    images = run.identity.get("images")
    check_identity(path, {**recipe.identity(), "seed": seed, "images": images})
    return run


def _check_data(run: RunReader, recipe: Recipe, *, compare: bool) -> None:
    """Raises UsageError if a run is known to be on other data than its recipe's now."""
    recorded = recorded_recipe(run)
    moved = recorded.data.replace(split_file=None) != recipe.data.replace(split_file=None)
    if "data" in run.identity and (moved or compare):
        data = _data_of(recipe.data, recorded.evaluation.images)
        check_identity(run.path, {**run.identity, "data": data})


@functools.cache
def _data_of(data: Data, images: str) -> dict[str, Any]:
    from jaxlt.recipes.run_directory import data_identity

    source = data.load()
    return data_identity(data, images, source, data.split(source))


def _evaluation(run: RunReader, stage: int | None) -> EvaluationRecord:
    if stage is None:
        return run.result
    records = [one for one in run.evaluations if one.stage == stage]
    if not records:
        raise UsageError(f"{run.path} must hold evaluations of stage {stage}, got none")
    return records[-1]
