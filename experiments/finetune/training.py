"""The short runs that choose and the runs that last, with a lower learning rate if they diverge."""

import dataclasses
import itertools
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import parsing
from experiments.finetune.facts import Facts
from experiments.finetune.recommended import search_of, trial_of
from experiments.table.program import Options, train_finite
from experiments.tuning import best_of, plan_trials, run_trials, shown_score
from jaxlt.errors import UsageError, counted
from jaxlt.recipes.named import vary
from jaxlt.recipes.recipe import Recipe

_logger = logging.getLogger(__name__)

# Behind the name of what is trained again, each time with half the learning rate.
_SLOWER = ("_half_lr", "_quarter_lr", "_eighth_lr")


class ShortRuns(NamedTuple):
    """What short runs are made of, beside the recipes.

    Attributes:
        facts: of the source.
        share: of the training images that is held out where there are no val images.
        epochs: of one; None for a third of the recipe's.
        rhos: radii that are tried.
    """

    facts: Facts
    share: float
    epochs: int | None
    rhos: Sequence[float]


def train(
    recipes: Mapping[str, Recipe],
    workdir: Path,
    options: Options,
    short: ShortRuns | None = None,
    *,
    rate_is_given: bool = False,
) -> dict[str, Recipe]:
    """Trains recipes; one that diverges is begun anew with half the learning rate and a new name.

    What lies in the directory already, diverged or finished, is not trained again.

    Args:
        recipes: by name.
        workdir: of the runs, NAME/seedN, and of the short ones, below trials.
        options: how the runs are trained.
        short: what chooses a value of each recipe before; None for nothing.
        rate_is_given: whether the learning rate must stay as it is.

    Returns:
        What was trained to the end, by name, in the order of `recipes`.

    Raises:
        UsageError: a recipe diverges with the lowest learning rate too, or cannot be trained.
    """
    trained: dict[str, Recipe] = {}
    left, suffixes = dict(recipes), ("",) if rate_is_given else ("", *_SLOWER)
    for before, suffix in itertools.pairwise(("", *suffixes)):
        left = _slower(left, before, suffix) if suffix else left
        tried = {name + suffix: recipe for name, recipe in left.items()}
        chosen = tried if short is None else _with_best_values(tried, short, workdir, options)
        diverged = train_finite(chosen, workdir, options)
        trained |= {name: one for name, one in chosen.items() if name not in diverged}
        left = {name: one for name, one in left.items() if name + suffix not in trained}
        if not left:
            return {
                name + end: trained[name + end]
                for name in recipes
                for end in suffixes
                if name + end in trained
            }
    name, recipe = next(iter(left.items()))
    rate = recipe.first.optimizer.lr
    place = shlex.quote(f"{workdir}_lr{rate / 4:g}")
    raise UsageError(
        f"learning rate of {name} must be such that its loss stays finite, got {rate:g}, with "
        f"which it does not: type the same command with --workdir {place} --optimizer.lr "
        f"{rate / 4:g} at its end, after a look at the images that nonfinite_batch.json names, and "
        "at the radius (--rhos, --method.rho)"
    )


def label_of(name: str) -> str:
    """Returns what is behind a method's label where its learning rate was lowered.

    Example:
        >>> label_of("focal_sam_half_lr"), label_of("focal_sam")
        (', half lr', '')
    """
    return "".join(f", {end[1:-3]} lr" for end in _SLOWER if name.endswith(end))


def _slower(recipes: Mapping[str, Recipe], before: str, suffix: str) -> dict[str, Recipe]:
    halved = {}
    for name, recipe in recipes.items():
        rate = recipe.first.optimizer.lr
        _logger.warning(
            "%s diverged with learning rate %g: it begins anew with half of it, %g, as %s",
            name + before,
            rate,
            rate / 2,
            name + suffix,
        )
        halved[name] = vary(recipe, lr=rate / 2)
    return halved


def _with_best_values(
    recipes: Mapping[str, Recipe], short: ShortRuns, workdir: Path, options: Options
) -> dict[str, Recipe]:
    """Returns the recipes with what short runs choose, but for those whose all diverge."""
    bases = {
        name: trial_of(one, short.facts, short.share, short.epochs) for name, one in recipes.items()
    }
    searches = [search_of(name, one, short.rhos) for name, one in recipes.items()]
    trials = plan_trials(bases, searches)
    _logger.info(
        "%s of %s %s %s",
        counted(len(trials), "short run"),
        counted(next(iter(bases.values())).first.epochs, "epoch"),
        "chooses" if len(trials) == 1 else "choose",
        " and ".join(one.shown for one in searches),
    )
    first = dataclasses.replace(options, seeds=options.seeds[:1])
    scores = run_trials(trials, workdir / "trials", first)
    finite = {one.method for one in trials if scores[one.name] > -math.inf}
    chosen = {}
    for name, trial in best_of([one for one in trials if one.method in finite], scores).items():
        flags = [f"--{field}={value}" for field, value in trial.values.items()]
        _logger.info(
            "%s: balanced accuracy %s %% with %s, the best of %s",
            name,
            shown_score(scores[trial.name]),
            " ".join(flags),
            ", ".join(shown_score(scores[one.name]) for one in trials if one.method == name),
        )
        chosen[name] = parsing.parse(recipes[name], flags)
    return chosen
