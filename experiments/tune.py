"""The best values of a recipe's fields, found by short runs: `python -m experiments.tune`."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import command_line, parsing
from experiments.flags import flags_of
from experiments.number_ranges import Numbers
from experiments.presentation import markdown_table
from experiments.recipe_program import chosen_recipe, label
from experiments.table.program import Options, say_once
from experiments.tuning import (
    Trial,
    best_of,
    is_held_out,
    parse_search,
    plan_trials,
    run_trials,
    shown_score,
)
from jaxlt.errors import UsageError, counted
from jaxlt.files.directory import write_atomically
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.named import vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe
from jaxlt.recipes.recorded import write_recipe

_logger = logging.getLogger(__name__)

_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    recipe: str = "focal_sam_digits"
    """Named recipe, a run or its recipe.json; the other flags override it."""
    search: tuple[str, ...] = ()
    """Must be given: what is tried, FIELD=VALUE,VALUE... for each field, such as
    method.rho=0.01,0.05,0.1. METHOD:FIELD=... is for one method of --compare alone."""
    compare: tuple[str, ...] = ()
    """Methods in place of the recipe's, such as sgd focal_sam, each with as many trials."""
    trials: int | None = None
    """Trials of each method, drawn from all combinations of values; none for all."""
    trial_epochs: int | None = None
    """Epochs of a trial's first stage, all else in proportion; none for the recipe's own."""
    workdir: Path | None = None
    """Directory of trials/NAME/seedN and of METHOD.json, the best recipes; none for
    runs/tune/RECIPE."""
    seeds: Numbers = (0,)
    """Seeds of each trial, whose mean is what counts; ranges such as 0-4 too."""
    jobs: int = 1
    """Processes that train at the same time, one run each; they share cores and memory equally."""
    base: Recipe = Recipe()  # noqa: RUF009 (it is frozen)
    execution: Execution = DEFAULT_EXECUTION


def main() -> None:
    """Parses the flags, trains the trials, and prints and saves what was best."""
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    name = command_line.word_of("recipe", sys.argv[1:], Arguments.recipe)
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.tune",
        "Trains a recipe with several values of its fields, as many trials for each method that is "
        "compared, and chooses by balanced accuracy on training images that are held out.",
        default=Arguments(name, base=chosen_recipe(name)),
    )
    if not arguments.search:
        raise UsageError(
            "search must name a field and its values, got nothing; give it as in "
            "--search method.rho=0.01,0.05,0.1"
        )
    say_once()
    search = [parse_search(word) for word in arguments.search]
    bases = _compared(_held_out(arguments.base), arguments)
    trials = plan_trials(bases, search, arguments.trials)
    workdir = arguments.workdir or Path("runs/tune") / label(name)
    each = counted(len(trials) // len(bases), "trial")
    _logger.info("%s of each of %s", each, counted(len(bases), "method"))
    options = Options(arguments.seeds, arguments.jobs, execution=arguments.execution)
    scores = run_trials(trials, workdir / "trials", options)
    best = best_of(trials, scores)
    print(f"\n{table_of(trials, scores, best)}\n")
    files = _write_best(workdir, best, arguments)
    command_line.say_next(
        *(_training(file, arguments.execution) for file in files),
        f"python3 -m experiments.report {shlex.quote(str(workdir / 'trials'))}",
    )


def _training(file: Path, execution: Execution) -> str:
    """Returns the command that trains a recipe as its trials were trained."""
    # The program's own directory for a recipe of this name may hold a run of another search.
    words = ["--recipe", str(file), "--workdir", str(file.parent / "best" / file.stem)]
    for flag, usual in zip(flags_of(execution), flags_of(DEFAULT_EXECUTION), strict=True):
        if flag.value != usual.value:
            words += [f"--{flag.name}", shown(flag.value)]
    return f"python3 -m experiments.cifar_lt {shlex.join(words)}"


def _held_out(recipe: Recipe) -> Recipe:
    if is_held_out(recipe):
        return recipe
    _logger.info(
        "a fifth of the training images is held out to choose by (--data.validation %s); "
        "no test image is looked at",
        _SHARE,
    )
    return vary(recipe, validation=_SHARE)


def _compared(base: Recipe, arguments: Arguments) -> dict[str, Recipe]:
    if arguments.trial_epochs is not None:
        if arguments.trial_epochs < 1:
            raise UsageError(f"trial_epochs must be at least 1, got {arguments.trial_epochs}")
        base = base.shortened(arguments.trial_epochs)
    if not arguments.compare:
        return {part_name(base.first.method): base}
    command_line.check_distinct("compared method", arguments.compare)
    return {name: parsing.parse(base, ["--method", name]) for name in arguments.compare}


def table_of(
    trials: Sequence[Trial], scores: Mapping[str, float], best: Mapping[str, Trial]
) -> str:
    """Renders the trials as Markdown, the best of each method in bold."""
    rows = []
    for trial in trials:
        values = ", ".join(f"{field} {word}" for field, word in trial.values.items())
        bold = "**" if best[trial.method] == trial else ""
        rows.append([trial.method, values, f"{bold}{shown_score(scores[trial.name])}{bold}"])
    table = markdown_table(["method", "values", "balanced accuracy"], rows, left=2)
    return f"In percent, on images held out of training\n\n{table}"


def _write_best(workdir: Path, best: Mapping[str, Trial], arguments: Arguments) -> list[Path]:
    """Writes the best recipe of each method, with the data and the epochs of the one given."""
    files = []
    for method, trial in best.items():
        words = [f"--{field}={word}" for field, word in trial.values.items()]
        recipe = parsing.parse(arguments.base, ["--method", method, *words])
        files.append(workdir / f"{method}.json")
        write_atomically(files[-1], write_recipe(recipe))
        _logger.info("best of %s: %s, written to %s", method, " ".join(words), files[-1])
    return files


if __name__ == "__main__":
    command_line.run(main)
