"""What is finished of a table: the runs in its directory, each cell's accuracies."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.presentation import percent
from experiments.recipe import Recipe
from experiments.table.plan import Cell, Plan
from jaxlt import UsageError
from jaxlt.files.json_files import read_json
from jaxlt.training import Workdir


@dataclasses.dataclass(frozen=True)
class Entry:
    """Accuracies of a cell, over the seeds that are finished.

    Attributes:
        cell: of the table.
        measure: many, medium, few or accuracy.
        values: of each seed in percent; NaN for a group without class.
        code: of each seed, the versions of the code that trained it, in the order of use.
    """

    cell: Cell
    measure: str
    values: dict[int, float]
    code: dict[int, tuple[str, ...]]

    @property
    def published(self) -> float | None:
        """The number of others, in percent."""
        return getattr(self.cell.published, self.measure) if self.cell.published else None

    def is_trained_by(self, code: str) -> bool:
        """Whether this version of the code, and no other, trained all of the runs."""
        return all(versions == (code,) for versions in self.code.values())


def run_directory(directory: Path, name: str, seed: int) -> Path:
    """Returns the directory of a run."""
    return directory / name / f"seed{seed}"


def finished_runs(
    directory: Path, name: str, recipe: Recipe, seeds: Sequence[int]
) -> dict[int, Workdir]:
    """Finds the finished runs of a recipe, and looks at the unfinished.

    Raises:
        UsageError: a run's directory holds something else, or runs are on different images.
    """
    begun = {
        seed: workdir
        for seed in seeds
        if (workdir := _begun(run_directory(directory, name, seed), recipe, seed)) is not None
    }
    images = {seed: _images(workdir.path) for seed, workdir in begun.items()}
    if len(set(images.values())) > 1:
        shown = ", ".join(f"seed{seed} has {digest}" for seed, digest in images.items())
        raise UsageError(f"runs in {directory / name} must be on the same images, {shown}")
    return {seed: workdir for seed, workdir in begun.items() if workdir.read_result() is not None}


def read_entries(directory: Path, plan: Plan, seeds: Sequence[int]) -> list[Entry]:
    """Reads the numbers of a table, cell by cell.

    Raises:
        UsageError: as `finished_runs`, or a run has no evaluation of the stage that is asked for.
    """
    entries: list[Entry] = []
    for cell in plan.cells:
        runs = finished_runs(directory, cell.name, cell.recipe, seeds)
        shown = {seed: _evaluation(workdir, cell.stage) for seed, workdir in runs.items()}
        code = {
            seed: tuple((run.read_result() or {}).get("code", ())) for seed, run in runs.items()
        }
        for measure in plan.measures:
            values = {seed: percent(record[measure]) for seed, record in shown.items()}
            entries.append(Entry(cell, measure, values, code))
    return entries


def _begun(path: Path, recipe: Recipe, seed: int) -> Workdir | None:
    """Opens the directory of a run, None if there is none yet; refuses what is not this run."""
    if not path.is_dir() or not any(path.iterdir()):
        return None
    # Which images a recipe selects is only known with its dataset, which nobody may have here.
    described = {**recipe.described(), "seed": seed, "images": _images(path)}
    return Workdir(path, described, defaults=recipe.defaults())


def _images(path: Path) -> Any:
    try:
        return read_json(path / "recipe.json").get("images")
    except UsageError:
        return None  # the directory will be refused, by what the file lacks


def _evaluation(workdir: Workdir, stage: int | None) -> dict[str, Any]:
    if stage is None:
        return workdir.read_result() or {}
    records = [one for one in workdir.read_metrics() if one.get("stage", 0) == stage]
    if not records:
        raise UsageError(f"{workdir.path} must hold evaluations of stage {stage}, it holds none")
    return records[-1]
