"""All six optimizers on long-tailed Fashion-MNIST: `python -m experiments.fashion_lt`."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import command_line
from experiments.table.program import Options, make_table, plan_methods, six_methods
from jaxlt.recipes.data import Exponential
from jaxlt.recipes.named import named, vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import EXECUTION_OF_SHORT_RUNS, Evaluation
from jaxlt.recipes.sources import AnySource

SETTINGS = {
    # 6000 T-shirts down to 60 ankle boots, 14,886 images; the rare classes are easy to tell.
    "native": vary(
        named("la_fashion"),
        profile=Exponential(imbalance_factor=100.0),
        epochs=20,
        evaluation=Evaluation(epochs=5, many_above=1000, few_below=200),
    ),
    # 1000 ankle boots down to 10 shirts, 2,478 images; the rare classes look like each other.
    "hard": vary(named("la_fashion"), epochs=40, evaluation=Evaluation(epochs=5)),
}
METHODS = {
    "native": six_methods(rho=0.05, tail_threshold=1000),
    "hard": six_methods(rho=0.05, tail_threshold=100),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    source: AnySource = SETTINGS["native"].data.source
    """Source of Fashion-MNIST; the default is where Debian's dataset-fashion-mnist puts it."""
    setting: Literal["native", "hard"] = "native"
    """native: all images, classes in their own order. hard: at most 1000 images a class, and an
    order in which the look-alike garments are rare."""
    workdir: Path | None = None
    """Directory of the runs, the table and the pictures; none for runs/fashion_lt_SETTING."""
    methods: tuple[str, ...] = tuple(map(part_name, METHODS["hard"]))
    """Which to train."""
    epochs: int | None = None
    """Passes over the training images; none for the setting's own, 20 or 40."""
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
    base = vary(SETTINGS[setting], source=arguments.source)
    if arguments.epochs is not None:
        base = vary(base, epochs=arguments.epochs)
    title = f"Long-tailed Fashion-MNIST, imbalance factor 100, {setting}"
    plan = plan_methods(title, base, METHODS[setting], arguments.methods)
    make_table(plan, arguments.workdir or Path(f"runs/fashion_lt_{setting}"), arguments.options)


if __name__ == "__main__":
    command_line.run(main)
