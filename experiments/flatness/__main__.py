"""Loss against noise on the parameters: `python -m experiments.flatness --checkpoint RUN...`."""

import dataclasses
import math
from typing import Literal

from experiments import command_line
from experiments.examined import Examined
from experiments.number_ranges import Numbers
from jaxlt.recipes.part import check


@dataclasses.dataclass(frozen=True)
class Arguments(Examined):
    """Flags of the program."""

    program = "flatness"

    scope: Literal["classifier", "all"] = "classifier"
    """Parameters that are perturbed: the classifier's, as in CC-SAM's figure 1, or all that were
    trained."""
    seeds: Numbers = (0, 1, 2, 3, 4)
    """Seeds of the random directions, which are the same for all runs. Ranges such as 0-4 are
    understood."""
    global_range: float = 1.0
    """Largest ratio ||eps|| / ||theta|| of the global range."""
    local_range: float = 0.1
    """Largest ratio of the local range."""
    points: int = 21
    """Ratios in each range, 0 among them."""


def main() -> None:
    """Parses the flags, evaluates the perturbed networks and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.flatness",
        "Loss of finished runs against the ratio ||eps|| / ||theta|| of noise to parameters, in "
        "random directions and along the gradient, for many-, medium- and few-shot classes "
        "(CC-SAM, figure 1).",
    )
    command_line.check_distinct("seed", arguments.seeds)
    check("points", arguments.points, arguments.points >= 2, "at least 2")
    ranges = {"global": arguments.global_range, "local": arguments.local_range}
    for name, largest in ranges.items():
        check(f"{name}_range", largest, 0 < largest < math.inf, "positive and finite")
    from experiments.flatness.curves import curves_of, draw
    from experiments.loaded_runs import say_written

    place, analyzed = arguments.load(arguments.scope)
    rows = curves_of(analyzed, ranges, arguments.points, arguments.seeds)
    arguments.write(place, {"rows": rows})
    for direction in ("random", "adversarial"):
        draw(rows, direction, arguments.scope, place / f"{direction}.png")
    say_written([place], arguments.checkpoint, "hessian")


if __name__ == "__main__":
    command_line.run(main)
