"""All six optimizers on the long-tailed digits, offline: `python -m experiments.quickstart`."""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from experiments import command_line
from experiments.execution import EXECUTION_OF_SHORT_RUNS, Execution
from experiments.recipe import Recipe
from experiments.stage import Method

# 116 training images of the digit 0 down to 5 of the digit 9, 390 in all.
BASE = Recipe(
    dataset="digits",
    imbalance_factor=20.0,
    augmentation="none",
    model="small_conv",
    epochs=60,
    batch_size=64,
    lr=0.05,
    weight_decay=5e-4,
    many_above=60,
    few_below=15,
    tail_threshold=30,
    eval_epochs=10,
)
METHODS: dict[Method, dict[str, Any]] = {
    "sgd": {},
    "sam": {"rho": 0.1},
    "imb_sam": {"rho": 0.1},
    "sse_sam": {"head_rho": 0.05, "tail_rho": 0.1},
    "focal_sam": {"rho": 0.1, "gamma": 2.0, "sharpness": 0.9},
    "cc_sam": {"scope": "classifier", "max_relative_radius": 0.01},
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    workdir: Path = Path("runs/quickstart")
    """Directory of the runs, the table and the picture."""
    methods: tuple[Method, ...] = tuple(METHODS)
    """Which to train."""
    seeds: command_line.Numbers = (0, 1, 2, 3, 4)
    """Seeds of parameters and data order; the images are the same for all.
    Ranges such as 0-4 are understood."""
    epochs: int = BASE.epochs
    """Passes over the training images."""
    execution: tyro.conf.OmitArgPrefixes[Execution] = EXECUTION_OF_SHORT_RUNS


def main() -> None:
    """Parses the flags, trains, and prints and saves the comparison."""
    arguments = command_line.parse(
        Arguments,
        "experiments.quickstart",
        "Trains SGD, SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM on a long-tailed selection of "
        "scikit-learn's digits and compares them in a table and a picture.",
    )
    from experiments.comparison import compare

    compare(
        dataclasses.replace(BASE, epochs=arguments.epochs),
        command_line.chosen("method", METHODS, arguments.methods),
        arguments.seeds,
        arguments.workdir,
        arguments.execution,
    )


if __name__ == "__main__":
    command_line.run(main)
