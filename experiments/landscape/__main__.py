"""Loss landscapes and trajectories: `python -m experiments.landscape --checkpoint RUN...`."""

import dataclasses
import math

from experiments import command_line
from experiments.examined import Examined
from jaxlt.recipes.part import check


@dataclasses.dataclass(frozen=True)
class Arguments(Examined):
    """Flags of the program."""

    program = "landscape"

    reach: float = 1.0
    """The plane goes from -reach to reach in both directions, in which each filter has the norm of
    the trained one."""
    points: int = 21
    """Points of the plane in each direction."""
    seed: int = 0
    """Seed of the two random directions, which are the same for all runs."""


def main() -> None:
    """Parses the flags, evaluates the planes and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.landscape",
        "Loss of finished runs over two random filter-normalized directions, for all, many-, "
        "medium- and few-shot classes, and the way of each run through its kept checkpoints "
        "(Li et al., NeurIPS 2018).",
    )
    check("points", arguments.points, arguments.points >= 3, "at least 3")
    check("reach", arguments.reach, 0 < arguments.reach < math.inf, "positive and finite")
    from experiments.landscape import planes
    from experiments.loaded_runs import say_written

    place, analyzed = arguments.load()
    shared = planes.planes_of(analyzed, arguments.reach, arguments.points, arguments.seed)
    own = planes.trajectories_of(analyzed, arguments.points)
    shown = {"planes": shared, "trajectories": own}
    values = {kind: {one.label: one.values() for one in shown[kind]} for kind in shown}
    arguments.write(place, values)
    planes.draw_contours(shared, place / "contours.png")
    planes.draw_surfaces(shared, place / "surfaces.png")
    if own:
        planes.draw_trajectories(own, place / "trajectories.png")
    say_written([place], arguments.checkpoint, "hessian")


if __name__ == "__main__":
    command_line.run(main)
