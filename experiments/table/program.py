"""What programs that make tables share: flags, methods to compare, the runs, the files."""

import dataclasses
import itertools
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from experiments import command_line
from experiments.number_ranges import Numbers
from experiments.presentation import evaluated_images
from experiments.table.plan import Cell, Plan, chosen, finished_runs, place_of_run, read_entries
from experiments.table.processes import PlannedRun, train_in_processes
from experiments.table.render import draw_by_class, draw_table, format_markdown, write_csv
from jaxlt import UsageError
from jaxlt.files.directory import write_json
from jaxlt.files.foreign_files import read_typed
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.named import vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe, code_version

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags about the runs of a table."""

    seeds: Numbers = (0, 1, 2, 3, 4)
    """Seeds of parameters, data order and augmentation, one run of each recipe each. Ranges such
    as 0-4 are understood."""
    jobs: int = 1
    """Processes that train at the same time, one run each; they share cores and memory equally."""
    render_only: bool = False
    """Train nothing, render what is finished."""
    execution: Execution = DEFAULT_EXECUTION

    def __post_init__(self):
        command_line.check_distinct("seed", self.seeds)
        if self.jobs < 1:
            raise UsageError(f"jobs must be at least 1, got {self.jobs}")


def six_methods(rho: float, tail_threshold: int) -> tuple[Method, ...]:
    """Returns SGD and the five sharpness-aware methods; classes of fewer images are the tail."""
    return (
        SGD(),
        SAM(rho=rho),
        ImbSAM(rho=rho, tail_threshold=tail_threshold),
        SSESAM(head_rho=0.05, tail_rho=0.1, tail_threshold=tail_threshold),
        FocalSAM(rho=0.1, gamma=2.0, sharpness_weight=0.9),
        CCSAM(max_relative_radius=0.01),
    )


def plan_methods(title: str, base: Recipe, methods: Sequence[Method], names: Sequence[str]) -> Plan:
    """Lays out a comparison: a row for each method that `names` keeps, all else as in `base`."""
    command_line.check_distinct("method", names)
    some = chosen("method", {part_name(method): method for method in methods}, names)
    cells = [Cell(one.label, "", name, vary(base, method=one)) for name, one in some.items()]
    return Plan(title, tuple(cells), by_group=True, compares_methods=True)


class _NonfiniteBatch(msgspec.Struct, frozen=True):
    """Of a step that was not finite, how many before it were left out; see `training.loop`."""

    step: int
    loss: str
    skipped: int = 0


def make_table(plan: Plan, directory: Path, options: Options) -> None:
    """Trains what is missing of a table, resumes what was begun, then prints it and saves it.

    What an option or a directory must not be raises UsageError before anything is trained.
    """
    say_once()
    if not options.render_only:
        train_missing(plan.recipes, directory, options)
    render_table(plan, directory, options)
    runs = [f"{directory / name}/seed{options.seeds[0]}" for name in list(plan.recipes)[:2]]
    command_line.say_next(
        f"python3 -m experiments.report {shlex.quote(str(directory))}",
        f"python3 -m experiments.flatness --checkpoint {shlex.join(runs)}",
    )


def say_once() -> None:
    """Has each line be logged once: all runs of a program say the same of their images."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        # Of a process's line what it said, without the run's name in front.
        line = getattr(record, "said", record.getMessage())
        known = line in said
        said.add(line)
        return not known

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_new)


def train_missing(recipes: Mapping[str, Recipe], directory: Path, options: Options) -> None:
    """Trains the runs of recipes, by name, that are not finished, see `make_table`."""
    _train(_missing(recipes, directory, options), options)


def train_finite(recipes: Mapping[str, Recipe], directory: Path, options: Options) -> list[str]:
    """Trains as `train_missing` does; a recipe of which a run diverges is left, with a warning.

    Started again, it knows by their files which runs have diverged, and does not train them again,
    but where the options let them leave out more steps than before.

    Args:
        recipes: by name.
        directory: of their runs, NAME/seedN.
        options: seeds of each recipe, and how they are trained.

    Returns:
        The names of the recipes that are left.

    Raises:
        UsageError: training ended for another reason, or a directory holds another run.
    """
    left: list[str] = []
    failure: UsageError | None = None
    while True:
        missing = [run for run in _missing(recipes, directory, options) if run.name not in left]
        reasons = [(run, _divergence(run, options, failure)) for run in missing]
        diverged = {run.name: f"{run.label} diverged: {why}" for run, why in reasons if why}
        if failure is not None and not diverged:
            raise failure
        for line in diverged.values():
            _logger.warning("%s", line)
        left += diverged
        try:
            _train([run for run in missing if run.name not in left], options)
            return left
        except UsageError as error:
            failure = error


def _divergence(run: PlannedRun, options: Options, failure: UsageError | None) -> str | None:
    """Returns why an unfinished run is not worth going on with; None if it may be."""
    file, said = run.path / "nonfinite_batch.json", str(failure)
    if file.exists():
        found = read_typed(file, _NonfiniteBatch)
        # Or it was left out, and something else stopped the run.
        if found.skipped >= options.execution.skip_nonfinite:
            return f"loss {found.loss} at step {found.step}, its batch is in {file}"
    # Of parameters that overflow where the loss does not there is no file.
    of_this = f"{run.path.absolute()}/" in said
    return said if of_this and "must stay finite" in said else None


def _missing(recipes: Mapping[str, Recipe], directory: Path, options: Options) -> list[PlannedRun]:
    missing: list[PlannedRun] = []
    for name, recipe in recipes.items():
        finished = finished_runs(directory, name, recipe, options.seeds, compare=True)
        missing += [
            PlannedRun(name, recipe, seed, place_of_run(directory, name, seed))
            for seed in options.seeds
            if seed not in finished
        ]
    return missing


def _train(missing: Sequence[PlannedRun], options: Options) -> None:
    if options.jobs > 1 and missing:
        train_in_processes(missing, options.jobs, options.execution)
    elif missing:
        from jaxlt.devices.backends import enable_compilation_cache
        from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members

        enable_compilation_cache()
        for name, group in itertools.groupby(missing, key=lambda run: run.name):
            runs = list(group)
            members = [Member(run.seed, run.path) for run in runs]
            train_members(BuiltRecipe(runs[0].recipe, options.execution), members, label=name)


def render_table(plan: Plan, directory: Path, options: Options) -> None:
    """Prints the table of a plan's finished runs and writes its files; see `make_table`."""
    entries = read_entries(directory, plan, options.seeds)
    if not any(entry.values for entry in entries):
        raise UsageError(f"workdir {directory} must hold finished runs of the table, got none")
    table = format_markdown(plan, entries, options.seeds, code_version())
    (directory / "table.md").write_text(table + "\n")
    write_csv(directory / "table.csv", entries)
    draw_table(plan, entries, directory / "table.png")
    written = ["table.md", "table.csv", "table.png"]
    if plan.compares_methods:
        written += _write_by_class(plan, directory, options.seeds)
    print(f"\n{table}\n")
    _logger.info("%s and %s are in %s", ", ".join(written[:-1]), written[-1], directory)


def _write_by_class(plan: Plan, directory: Path, seeds: Sequence[int]) -> list[str]:
    """Writes the results of finished runs and their accuracy by class; returns the files' names."""
    counts: list[int] = []
    by_name, by_label = {}, {}
    for cell in plan.cells:
        if runs := list(finished_runs(directory, cell.name, cell.recipe, seeds).values()):
            counts = [run.class_counts.tolist() for run in runs][-1]
            by_name[cell.name] = by_label[cell.row] = [run.read_result() or {} for run in runs]
    write_json(directory / "results.json", {"class_counts": counts, "runs": by_name})
    images = evaluated_images(plan.recipes.values())
    draw_by_class(counts, by_label, directory / "accuracy_by_class.png", images)
    return ["results.json", "accuracy_by_class.png"]
