"""Loss landscapes and trajectories: `python -m experiments.landscape --checkpoint RUN...`."""

import dataclasses
import logging
import math

from experiments import command_line
from experiments.examined import Examined
from jaxlt.recipes.part import check


@dataclasses.dataclass(frozen=True)
class Arguments(Examined):
    """Flags of the program."""

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
        "Loss of finished runs over two random filter-normalised directions, for all, many-, "
        "medium- and few-shot classes, and the way of each run through its kept checkpoints "
        "(Li et al., NeurIPS 2018).",
    )
    check("points", arguments.points, arguments.points >= 3, "at least 3")
    check("reach", arguments.reach, 0 < arguments.reach < math.inf, "positive and finite")
    from experiments.analysed_run import analysed_runs
    from experiments.landscape.picture import draw_contours, draw_surfaces, draw_trajectories
    from experiments.landscape.planes import check_same_network, planes_of, trajectories_of, values
    from experiments.loaded_runs import load_runs
    from experiments.written_report import common_destination, write_values
    from jaxlt.devices.compilation_cache import enable_compilation_cache
    from jaxlt.files.json_files import claim_directory

    enable_compilation_cache()
    runs = load_runs(arguments.checkpoint)
    place = common_destination(runs, arguments.output, "landscape")
    analysed = analysed_runs(runs, arguments)
    check_same_network(analysed)
    planes = planes_of(analysed, arguments.reach, arguments.points, arguments.seed)
    trajectories = trajectories_of(analysed, arguments.points)
    claim_directory(place)
    write_values(
        place / "landscape.json", {**arguments.described(), **values(planes, trajectories)}
    )
    draw_contours(planes, place / "contours.png")
    draw_surfaces(planes, place / "surfaces.png")
    if trajectories:
        draw_trajectories(trajectories, place / "trajectories.png")
    logging.getLogger(__name__).info("written to %s", place)


if __name__ == "__main__":
    command_line.run(main)
