"""Trials of a recipe under one budget for every method, and the best of them.

A trial is a run like any other, so that a search that was stopped goes on. It is judged by the
balanced accuracy of images that are held out of training, never by test images.
"""

import itertools
import logging
import math
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import parsing
from experiments.flags import flags_of
from experiments.table.plan import finished_runs
from experiments.table.program import Options, train_finite
from jaxlt.errors import UsageError
from jaxlt.recipes.recipe import Recipe

_logger = logging.getLogger(__name__)

_LONGEST_NAME = 120
# Of the draw of some trials among all; the same for every method and every start.
_SEED_OF_DRAW = 0


class Search(NamedTuple):
    """Values of one field of a recipe, as words of its flag; `method` alone, or all with it."""

    field: str
    values: tuple[str, ...]
    method: str | None = None

    @property
    def shown(self) -> str:
        """As the command line takes it."""
        prefix = "" if self.method is None else f"{self.method}:"
        return f"{prefix}{self.field}={','.join(self.values)}"


class Trial(NamedTuple):
    """A recipe to be tried: the method it is a trial of, the words of its fields, its name."""

    method: str
    values: dict[str, str]
    name: str
    recipe: Recipe


def parse_search(word: str) -> Search:
    """Reads FIELD=VALUE,VALUE... or METHOD:FIELD=VALUE,VALUE...; UsageError for another word.

    Example:
        >>> parse_search("sgd:optimizer.lr=0.01,0.1")
        Search(field='optimizer.lr', values=('0.01', '0.1'), method='sgd')
    """
    place, equals, listed = word.partition("=")
    method, colon, field = place.rpartition(":")
    values = tuple(listed.split(","))
    if not (equals and field and all(values)) or (colon and not method):
        raise UsageError(
            f"search must be FIELD=VALUE,VALUE such as method.rho=0.01,0.05, got {word}"
        )
    if len(set(values)) < len(values):
        raise UsageError(f"values of search {field} must be different, got {listed}")
    return Search(field.replace("_", "-"), values, method or None)


def plan_trials(
    bases: Mapping[str, Recipe], search: Sequence[Search], trials: int | None = None
) -> list[Trial]:
    """Lays out the trials: each combination of values, or as many of them for every method.

    Args:
        bases: the recipe of each method that is compared, by the method's name.
        search: fields and values; one without a method is for every recipe that has the field.
        trials: of each method, drawn evenly from all combinations; None for all of them.

    Raises:
        UsageError: a field or value is none of a recipe's, or the methods would have unequal
            numbers of trials.
    """
    if trials is not None and trials < 1:
        raise UsageError(f"trials must be at least 1, got {trials}")
    used: set[Search] = set()
    planned: dict[str, list[Trial]] = {}
    for method, base in bases.items():
        known = {flag.name for flag in flags_of(base)}
        own = [
            one
            for one in search
            if one.method == method or (one.method is None and one.field in known)
        ]
        used.update(own)
        planned[method] = list(_combinations(method, base, own))
    for one in search:
        if one not in used:
            names = ", ".join(bases)
            raise UsageError(
                f"search must be of a field that a recipe has, of {names}, got {one.shown}"
            )
    if trials is not None:
        planned = {method: _drawn(method, all_, trials) for method, all_ in planned.items()}
    numbers = {method: len(some) for method, some in planned.items()}
    if len(set(numbers.values())) > 1:
        few, many = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
        raise UsageError(
            f"search must give every method as many trials, got {numbers[many]} of {many} and "
            f"{numbers[few]} of {few}: add values for it, such as {few}:optimizer.lr=0.01,0.1, "
            f"or draw as many with --trials {numbers[few]}"
        )
    return [trial for some in planned.values() for trial in some]


def _combinations(method: str, base: Recipe, search: Sequence[Search]) -> Iterator[Trial]:
    for words in itertools.product(*(one.values for one in search)):
        values = {one.field: word for one, word in zip(search, words, strict=True)}
        flags = [f"--{field}={word}" for field, word in values.items()]
        yield Trial(method, values, _name(method, values), parsing.parse(base, flags))


def _name(method: str, values: Mapping[str, str]) -> str:
    """Returns a name that a directory can have, the same for the same values."""
    last = [field.rpartition(".")[2] for field in values]
    fields = last if len(set(last)) == len(last) else list(values)
    pairs = (f"{field}={value}" for field, value in zip(fields, values.values(), strict=True))
    name = urllib.parse.quote(",".join((method, *pairs)), safe="=,+")
    if len(name) > _LONGEST_NAME:
        need = f"so few and short that a directory may be named by them, {_LONGEST_NAME} letters"
        raise UsageError(f"values of a trial must be {need}, got {name}")
    return name


def _drawn(method: str, trials: list[Trial], number: int) -> list[Trial]:
    if number > len(trials):
        raise UsageError(
            f"trials must be at most {len(trials)}, the combinations of values for {method}, got "
            f"{number}: give it further values, such as {method}:optimizer.lr=0.01,0.03,0.1"
        )
    random = np.random.default_rng(_SEED_OF_DRAW)
    kept = sorted(random.choice(len(trials), number, replace=False).tolist())
    return [trials[one] for one in kept]


def is_held_out(recipe: Recipe) -> bool:
    """Whether what a recipe evaluates is no test image, so that it may be chosen by."""
    return recipe.data.holds_out or recipe.evaluation.images == "val"


def run_trials(trials: Sequence[Trial], directory: Path, options: Options) -> dict[str, float]:
    """Trains what is missing of the trials in `directory`/NAME/seedN.

    Returns:
        The balanced accuracy of each name, the mean over the seeds; -inf, the worst, for a trial
        that diverged.

    Raises:
        UsageError: a trial would be judged by test images, or a directory holds another run.
    """
    for trial in trials:
        if not is_held_out(trial.recipe):
            raise UsageError(
                f"evaluated images of trial {trial.name} must be held out of training, got test "
                "images; give --data.validation 0.2"
            )
    diverged = train_finite({one.name: one.recipe for one in trials}, directory, options)
    return {
        one.name: -math.inf if one.name in diverged else _score(directory, one, options)
        for one in trials
    }


def _score(directory: Path, trial: Trial, options: Options) -> float:
    runs = finished_runs(directory, trial.name, trial.recipe, options.seeds)
    return float(np.mean([run.result.balanced_accuracy for run in runs.values()]))


def shown_score(score: float) -> str:
    """Returns a balanced accuracy of `run_trials` in percent, or that the trial diverged."""
    return "diverged" if score == -math.inf else f"{100 * score:.2f}"


def best_of(trials: Sequence[Trial], scores: Mapping[str, float]) -> dict[str, Trial]:
    """Returns the best trial of each method; of equal ones that with the smaller values.

    UsageError says that all trials of a method diverged.
    """
    found: dict[str, Trial] = {}
    for method in dict.fromkeys(trial.method for trial in trials):
        own = [trial for trial in trials if trial.method == method]
        highest = max(scores[trial.name] for trial in own)
        if highest == -math.inf:
            raise UsageError(
                f"a trial of {method} must have a finite loss, got none: search smaller values"
            )
        equal = sorted(
            (trial for trial in own if scores[trial.name] == highest),
            key=lambda trial: [_by_size(word) for word in trial.values.values()],
        )
        if len(equal) > 1:
            names = ", ".join(trial.name for trial in equal)
            _logger.info("%s are equally good; the smaller values are taken", names)
        found[method] = equal[0]
    return found


def _by_size(word: str) -> tuple[float, str]:
    try:
        return float(word), word
    except ValueError:
        return math.inf, word
