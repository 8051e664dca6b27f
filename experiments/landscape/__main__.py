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
    from experiments.landscape.picture import draw_contours, draw_surfaces, draw_trajectories
    from experiments.landscape.planes import planes_of, trajectories_of
    from experiments.written_report import say_written

    place, analyzed = arguments.load()
    planes = planes_of(analyzed, arguments.reach, arguments.points, arguments.seed)
    trajectories = trajectories_of(analyzed, arguments.points)
    shown = {"planes": planes, "trajectories": trajectories}
    values = {kind: {one.label: one.values() for one in shown[kind]} for kind in shown}
    arguments.write(place, values)
    draw_contours(planes, place / "contours.png")
    draw_surfaces(planes, place / "surfaces.png")
    if trajectories:
        draw_trajectories(trajectories, place / "trajectories.png")
    say_written([place], arguments.checkpoint, "hessian")


if __name__ == "__main__":
    command_line.run(main)
