"""One run on CIFAR-10/100-LT or any other source: `python -m experiments.cifar_lt`."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments import command_line
from experiments.recipe import Recipe
from experiments.recipes import RECIPES
from jaxlt import UsageError

if TYPE_CHECKING:
    RecipeName = str
else:
    RecipeName = Literal[*RECIPES]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The named recipe whose values the other flags start from."""

    recipe: RecipeName = "sgd_cifar10"
    """Named recipe; every other flag overrides one of its values."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    chosen: tyro.conf.OmitArgPrefixes[Chosen]
    options: Annotated[Recipe, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Directory of the run; None for runs/cifar_lt/RECIPE-seedN."""
    seed: int = 0
    """Seed of parameters, data order and augmentation."""
    resume: bool = True
    """Go on where the workdir's run of the same recipe stopped."""
    keep_checkpoints: int = 2
    """Latest checkpoints kept, beside the best by balanced accuracy."""


def main() -> None:
    """Parses the flags, trains or resumes, and logs the last evaluation."""
    arguments = _arguments()
    recipe = arguments.chosen.recipe
    workdir = arguments.workdir or Path("runs/cifar_lt") / f"{recipe}-seed{arguments.seed}"
    if not arguments.resume and workdir.exists():
        raise UsageError(f"workdir must be new with --no-resume, {workdir} exists")
    if arguments.keep_checkpoints < 1:
        raise UsageError(f"keep_checkpoints must be at least 1, got {arguments.keep_checkpoints}")
    from experiments.experiment import Experiment

    result = Experiment(arguments.options).run(
        arguments.seed, workdir, keep_checkpoints=arguments.keep_checkpoints, label=recipe
    )
    groups = ("many", "medium", "few")
    shown = ", ".join(f"{g} {100 * result[g]:.2f}" for g in groups if result[g] is not None)
    logging.getLogger(__name__).info(
        "accuracy %.2f %% (%s) after %d steps in %.1f s, %s",
        100 * result["accuracy"],
        shown,
        result["step"],
        result["seconds"],
        workdir,
    )


def _arguments() -> Arguments:
    about = "experiments.cifar_lt", "Trains one recipe on CIFAR-10/100-LT or any other source."
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    chosen, _ = command_line.parse(Chosen, *about, return_unknown_args=True, add_help=False)
    default = Arguments(chosen=chosen, options=RECIPES[chosen.recipe])
    return command_line.parse(Arguments, *about, default=default)


if __name__ == "__main__":
    command_line.run(main)
