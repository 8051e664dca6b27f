"""All six optimizers on long-tailed Fashion-MNIST: `python -m experiments.fashion_lt`."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import command_line
from experiments.table.plan import plan_methods
from experiments.table.program import Options, make_table
from jaxlt.recipes.data import Data, Exponential, source
from jaxlt.recipes.execution import EXECUTION_OF_SHORT_RUNS
from jaxlt.recipes.images import Augmentation
from jaxlt.recipes.losses import LogitAdjusted
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.named.vary import vary
from jaxlt.recipes.network import Small
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.stage import Stage

_BASE = Recipe(
    data=Data(profile=Exponential(imbalance_factor=100.0)),
    network=Small(architecture="small_conv"),
    stages=(
        Stage(
            batch_size=128,
            loss=LogitAdjusted(),
            optimizer=Optimizer(lr=0.05, weight_decay=5e-4),
            augmentation=Augmentation(shift="none"),
        ),
    ),
)
SETTINGS: dict[str, Recipe] = {
    # 6000 T-shirts down to 60 ankle boots, 14,886 images; the rare classes are easy to tell.
    "native": vary(
        _BASE, epochs=20, evaluation=Evaluation(epochs=5, many_above=1000, few_below=200)
    ),
    # 1000 ankle boots down to 10 shirts, 2,478 images; the rare classes look like each other.
    "hard": vary(
        _BASE,
        profile=Exponential(max_per_class=1000, class_order=(9, 8, 5, 7, 1, 3, 0, 4, 2, 6)),
        epochs=40,
        evaluation=Evaluation(epochs=5),
    ),
}
_TAIL_THRESHOLDS = {"native": 1000, "hard": 100}


def methods(tail_threshold: int) -> tuple[Method, ...]:
    """Returns the methods, with classes of fewer training images as the tail."""
    return (
        SGD(),
        SAM(rho=0.05),
        ImbSAM(rho=0.05, tail_threshold=tail_threshold),
        SSESAM(head_rho=0.05, tail_rho=0.1, tail_threshold=tail_threshold),
        FocalSAM(rho=0.1, gamma=2.0, sharpness_weight=0.9),
        CCSAM(max_relative_radius=0.01),
    )


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    source: str = "idx:/usr/share/datasets/fashion-mnist"
    """Source of Fashion-MNIST; the default is where Debian's dataset-fashion-mnist puts it."""
    setting: Literal["native", "hard"] = "native"
    """native: all images, classes in their own order. hard: at most 1000 images a class, and an
    order in which the look-alike garments are rare."""
    workdir: Path | None = None
    """Directory of the runs, the table and the pictures; None for runs/fashion_lt_SETTING."""
    methods: tuple[str, ...] = tuple(map(part_name, methods(100)))
    """Which to train."""
    epochs: int | None = None
    """Passes over the training images; None for the setting's own, 20 or 40."""
    options: Options = Options((0, 1, 2), execution=EXECUTION_OF_SHORT_RUNS)  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, trains, and prints and saves the comparison."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.fashion_lt",
        "Trains SGD, SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM on Fashion-MNIST with imbalance "
        "factor 100 and compares them in a table and a picture.",
    )
    setting = arguments.setting
    base = vary(SETTINGS[setting], source=source(arguments.source))
    if arguments.epochs is not None:
        base = vary(base, epochs=arguments.epochs)
    title = f"Long-tailed Fashion-MNIST, imbalance factor 100, {setting}"
    plan = plan_methods(title, base, methods(_TAIL_THRESHOLDS[setting]), arguments.methods)
    directory = arguments.workdir or Path(f"runs/fashion_lt_{setting}")
    make_table(plan, directory, arguments.options)


if __name__ == "__main__":
    command_line.run(main)
