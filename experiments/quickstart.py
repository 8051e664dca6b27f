"""All six optimizers on the long-tailed digits, offline: `python -m experiments.quickstart`."""

import dataclasses
from pathlib import Path

from experiments import command_line
from experiments.table.program import Options, make_table, plan_methods, six_methods
from jaxlt.recipes.named import named, vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import EXECUTION_OF_SHORT_RUNS, Evaluation

# 116 training images of the digit 0 down to 5 of the digit 9, 390 in all.
BASE = vary(named("sgd_digits"), evaluation=Evaluation(epochs=10, many_above=60, few_below=15))
METHODS = six_methods(rho=0.1, tail_threshold=30)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    workdir: Path = Path("runs/quickstart")
    """Directory of the runs, the table and the pictures."""
    methods: tuple[str, ...] = tuple(map(part_name, METHODS))
    """Which to train."""
    epochs: int = BASE.first.epochs
    """Passes over the training images."""
    options: Options = Options(execution=EXECUTION_OF_SHORT_RUNS)  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, trains, and prints and saves the comparison."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.quickstart",
        "Trains SGD, SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM on a long-tailed selection of "
        "scikit-learn's digits and compares them in a table and a picture.",
    )
    base = vary(BASE, epochs=arguments.epochs)
    plan = plan_methods("Long-tailed digits, imbalance factor 20", base, METHODS, arguments.methods)
    make_table(plan, arguments.workdir, arguments.options)


if __name__ == "__main__":
    command_line.run(main)
