"""What is finished of a table: the runs in its directory, each cell's accuracies."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.table.plan import SECONDS, Cell, Plan
from jaxlt import UsageError
from jaxlt.recipes.recipe import Recipe
from jaxlt.runs.reader import RunReader
from jaxlt.runs.records import EvaluationRecord
from jaxlt.runs.workdir import check_identity


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


def run_directory(directory: Path, name: str, seed: int) -> Path:
    """Returns the directory of a run."""
    return directory / name / f"seed{seed}"


def finished_runs(
    directory: Path, name: str, recipe: Recipe, seeds: Sequence[int]
) -> dict[int, RunReader]:
    """Finds the finished runs of a recipe; all that are begun must be its own, of equal images."""
    begun = {
        seed: run
        for seed in seeds
        if (run := _begun(run_directory(directory, name, seed), recipe, seed)) is not None
    }
    images = {seed: run.identity.get("images") for seed, run in begun.items()}
    if any(digest != next(iter(images.values())) for digest in images.values()):
        shown = ", ".join(f"seed{seed} has {digest}" for seed, digest in images.items())
        raise UsageError(f"runs in {directory / name} must be on the same images, {shown}")
    return {seed: run for seed, run in begun.items() if run.result_file.exists()}


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


def _evaluation(run: RunReader, stage: int | None) -> EvaluationRecord:
    if stage is None:
        return run.result
    records = [one for one in run.evaluations if one.stage == stage]
    if not records:
        raise UsageError(f"{run.path} must hold evaluations of stage {stage}, got none")
    return records[-1]
