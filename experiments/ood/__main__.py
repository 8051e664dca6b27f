"""Finished runs on images of another distribution: `python -m experiments.ood --checkpoint RUN`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import command_line
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    from experiments.ood.report import Report

_ALEXNET = "alexnet"
_IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs. They are shown the same
    images, so they must have the same classes and image shape."""
    dataset: str | None = None
    """generate: where the runs' data are now, such as folder:DIR; none for where they were
    trained."""
    folders: tuple[Path, ...] = ()
    """Image folders DIR/CLASS/*.jpg such as ImageNet-Sketch, whose directories are named after the
    runs' classes, or ImageNetV2, whose directories are numbered by them."""
    corruptions_tree: Path | None = None
    """ImageNet-C: DIR/CORRUPTION/SEVERITY/CLASS/*.JPEG."""
    generate: bool = False
    """Corrupt the runs' own test images as ImageNet-C does. Needs the extra `ood`."""
    corruptions: tuple[str, ...] = ()
    """generate: names of corruptions; none for ImageNet-C's 15."""
    images_per_class: int | None = None
    """generate: take the first so many test images of each class; none takes all."""
    seed: int = 0
    """generate: seed of the corruptions, which are the same for all runs."""
    workers: int = 1
    """generate: processes that make the corruptions. The images do not depend on it."""
    baseline: str | None = None
    """Finished run by whose errors corruption errors are divided, which makes their mean the mCE;
    alexnet, with ImageNet-C, for AlexNet's published ones; none leaves them as they are."""
    output: Path | None = None
    """Directory of table.md, ood.json, reliability.png and corruptions.png; none for RUN/ood, for
    each run its own."""


def main() -> None:
    """Parses the flags, evaluates each run, prints the tables and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.ood",
        "Evaluates finished runs on images of another distribution than they were trained on: "
        "other data sets of their classes, and corruptions.",
    )
    _check(arguments)
    from experiments import loaded_runs
    from experiments.ood import evaluations
    from experiments.ood.report import Report, format_tables
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.evaluation.corruptions import ALEXNET_ERRORS

    enable_compilation_cache()
    runs = loaded_runs.load_runs(arguments.checkpoint, arguments.dataset)
    places = loaded_runs.destinations(runs, arguments.output, "ood")
    of_alexnet = arguments.baseline == _ALEXNET
    if of_alexnet and runs[0].num_classes != _IMAGENET_CLASSES:
        raise UsageError(
            f"baseline must be a run where the classes are not ImageNet's {_IMAGENET_CLASSES}, "
            f"got {_ALEXNET} with {runs[0].num_classes} classes"
        )
    shifts = [evaluations.Shifts(run) for run in runs]
    if arguments.baseline is not None and not of_alexnet:
        run = loaded_runs.load_run(Path(arguments.baseline), "baseline", arguments.dataset)
        shifts.append(evaluations.Shifts(run))
    evaluations.check_alike([one.run for one in shifts], same_data=arguments.generate)
    if arguments.folders:
        evaluations.evaluate_folders(shifts, arguments.folders)
    if arguments.corruptions_tree is not None:
        evaluations.evaluate_tree(shifts, arguments.corruptions_tree)
    if arguments.generate:
        evaluations.evaluate_generated(shifts, arguments)
    baseline = None
    if arguments.baseline is not None:
        baseline = ALEXNET_ERRORS if of_alexnet else shifts[-1].errors
    reports = [Report(one, baseline, arguments.baseline) for one in shifts[: len(runs)]]
    loaded_runs.write_reports(places, reports, lambda place, some: _write(place, some, arguments))
    print(f"\n{format_tables(reports)}\n")
    loaded_runs.say_written(places, arguments.checkpoint, "open_lt --open SOURCE")


def _check(arguments: Arguments) -> None:
    corrupted = arguments.generate or arguments.corruptions_tree is not None
    if not corrupted and not arguments.folders:
        raise UsageError("folders, corruptions_tree or generate must be given, got none")
    if arguments.generate and arguments.corruptions_tree is not None:
        raise UsageError(
            f"corruptions_tree must be none with generate, got {arguments.corruptions_tree}"
        )
    if arguments.baseline is not None and not corrupted:
        raise UsageError("baseline must go with corruptions_tree or generate, got neither")
    if arguments.baseline == _ALEXNET and arguments.generate:
        raise UsageError(f"baseline must be a run with generate, got {_ALEXNET}")
    for name in ("corruptions", "images_per_class", "dataset"):
        if getattr(arguments, name) and not arguments.generate:
            raise UsageError(f"{name} must go with generate, got it alone")
    command_line.check_distinct("corruption", arguments.corruptions or ("all",))


def _write(place: Path, reports: list["Report"], arguments: Arguments) -> None:
    from experiments.loaded_runs import write_values
    from experiments.ood.report import draw_corruptions, draw_reliability, format_tables

    (place / "table.md").write_text(format_tables(reports) + "\n")
    generated = {"seed": arguments.seed, "images_per_class": arguments.images_per_class}
    values = {"generated": generated} if arguments.generate else {}
    runs = {one.label: one.values() for one in reports}
    write_values(place / "ood.json", {**values, "runs": runs})
    draw_reliability(reports, place / "reliability.png")
    if reports[0].errors:
        draw_corruptions(reports, place / "corruptions.png")


if __name__ == "__main__":
    command_line.run(main)
