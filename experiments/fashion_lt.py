"""All six optimizers on long-tailed Fashion-MNIST: `python -m experiments.fashion_lt`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import command_line
from experiments.execution import EXECUTION_OF_SHORT_RUNS, Execution
from experiments.recipe import Recipe
from experiments.stage import Method

_BASE = Recipe(
    imbalance_factor=100.0,
    augmentation="none",
    model="small_conv",
    loss="logit_adjusted",
    batch_size=128,
    lr=0.05,
    weight_decay=5e-4,
)
SETTINGS: dict[str, Recipe] = {
    # 6000 T-shirts down to 60 ankle boots, 14,886 images; the rare classes are easy to tell.
    "native": dataclasses.replace(
        _BASE, epochs=20, eval_epochs=5, many_above=1000, few_below=200, tail_threshold=1000
    ),
    # 1000 ankle boots down to 10 shirts, 2,478 images; the rare classes look like each other.
    "hard": dataclasses.replace(
        _BASE,
        max_per_class=1000,
        class_order=(9, 8, 5, 7, 1, 3, 0, 4, 2, 6),
        epochs=40,
        eval_epochs=5,
        tail_threshold=100,
    ),
}
METHODS: dict[Method, dict[str, Any]] = {
    "sgd": {},
    "sam": {"rho": 0.05},
    "imb_sam": {"rho": 0.05},
    "sse_sam": {"head_rho": 0.05, "tail_rho": 0.1},
    "focal_sam": {"rho": 0.1, "gamma": 2.0, "sharpness": 0.9},
    "cc_sam": {"scope": "classifier", "max_relative_radius": 0.01},
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    dataset: str = "idx:/usr/share/datasets/fashion-mnist"
    """Source of Fashion-MNIST; the default is where Debian's dataset-fashion-mnist puts it."""
    setting: Literal["native", "hard"] = "native"
    """native: all images, classes in their own order. hard: at most 1000 images a class, and an
    order in which the look-alike garments are rare."""
    workdir: Path | None = None
    """Directory of the runs, the table and the picture; None for runs/fashion_lt_SETTING."""
    methods: tuple[Method, ...] = tuple(METHODS)
    """Which to train."""
    seeds: command_line.Numbers = (0, 1, 2)
    """Seeds of parameters, data order and augmentation; the images are the same for all.
    Ranges such as 0-4 are understood."""
    epochs: int | None = None
    """Passes over the training images; None for the setting's own, 20 or 40."""
    execution: tyro.conf.OmitArgPrefixes[Execution] = EXECUTION_OF_SHORT_RUNS


def main() -> None:
    """Parses the flags, trains, and prints and saves the comparison."""
    arguments = command_line.parse(
        Arguments,
        "experiments.fashion_lt",
        "Trains SGD, SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM on Fashion-MNIST with imbalance "
        "factor 100 and compares them in a table and a picture.",
    )
    from experiments.comparison import compare

    recipe = dataclasses.replace(SETTINGS[arguments.setting], dataset=arguments.dataset)
    if arguments.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=arguments.epochs)
    compare(
        recipe,
        command_line.chosen("method", METHODS, arguments.methods),
        arguments.seeds,
        arguments.workdir or Path(f"runs/fashion_lt_{arguments.setting}"),
        arguments.execution,
    )


if __name__ == "__main__":
    command_line.run(main)
