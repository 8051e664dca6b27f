"""Loss against noise on the parameters: `python -m experiments.flatness --checkpoint RUN...`."""

import dataclasses
import logging
import math
from typing import Literal

from experiments import command_line
from experiments.examined import Examined
from jaxlt.recipes.part import check


@dataclasses.dataclass(frozen=True)
class Arguments(Examined):
    """Flags of the program."""

    scope: Literal["classifier", "all"] = "classifier"
    """Parameters that are perturbed: the classifier's, as in CC-SAM's figure 1, or all that were
    trained."""
    seeds: command_line.Numbers = (0, 1, 2, 3, 4)
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
    for name in ("global_range", "local_range"):
        largest = getattr(arguments, name)
        check(name, largest, 0 < largest < math.inf, "positive and finite")
    from experiments.analysed_run import analysed_runs
    from experiments.flatness.curves import curves_of, values
    from experiments.flatness.picture import draw
    from experiments.loaded_runs import load_runs
    from experiments.written_report import common_destination, write_values
    from jaxlt.devices.compilation_cache import enable_compilation_cache
    from jaxlt.files.json_files import claim_directory

    enable_compilation_cache()
    runs = load_runs(arguments.checkpoint)
    place = common_destination(runs, arguments.output, "flatness")
    ranges = {"global": arguments.global_range, "local": arguments.local_range}
    rows = curves_of(
        analysed_runs(runs, arguments, arguments.scope), ranges, arguments.points, arguments.seeds
    )
    claim_directory(place)
    write_values(place / "flatness.json", {**arguments.described(), "rows": values(rows)})
    for direction in ("random", "adversarial"):
        draw(rows, direction, arguments.scope, place / f"{direction}.png")
    logging.getLogger(__name__).info("written to %s", place)


if __name__ == "__main__":
    command_line.run(main)
