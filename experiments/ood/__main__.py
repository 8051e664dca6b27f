"""Finished runs on images of another distribution: `python -m experiments.ood --checkpoint RUN`."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import command_line
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    from experiments.ood.evaluations import Shifts
    from experiments.ood.report import Report
    from jaxlt.recipes.trained_run import TrainedRun

_ALEXNET = "alexnet"
_IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs. They are shown the same
    images, so they must have the same classes and image shape."""
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
    """generate: take the first so many test images of each class; None takes all."""
    seed: int = 0
    """generate: seed of the corruptions, which are the same for all runs."""
    workers: int = 1
    """generate: processes that make the corruptions. The images do not depend on it."""
    baseline: str | None = None
    """Finished run by whose errors corruption errors are divided, which makes their mean the mCE;
    alexnet, with ImageNet-C, for AlexNet's published ones. None leaves them as they are."""
    output: Path | None = None
    """Directory of table.md, ood.json, reliability.png and corruptions.png; None for RUN/ood, for
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
    from experiments.loaded_runs import load_run, load_runs
    from experiments.ood.evaluations import check_alike
    from experiments.ood.report import format_tables
    from experiments.written_report import destinations, write_reports
    from jaxlt.devices.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    runs = load_runs(arguments.checkpoint)
    places = destinations(runs, arguments.output, "ood")
    baseline = None
    if arguments.baseline == _ALEXNET:
        if runs[0].num_classes != _IMAGENET_CLASSES:
            raise UsageError(
                f"baseline must be a run where the classes are not ImageNet's {_IMAGENET_CLASSES}, "
                f"got {_ALEXNET} with {runs[0].num_classes} classes"
            )
    elif arguments.baseline is not None:
        baseline = load_run(Path(arguments.baseline), "baseline")
    shown = [*runs, baseline] if baseline else runs
    check_alike(shown, same_data=arguments.generate)
    reports = _reports(runs, _evaluate(shown, arguments), arguments)
    write_reports(places, reports, lambda place, chosen: _write(place, chosen, arguments))
    print(f"\n{format_tables(reports)}\n")
    logging.getLogger(__name__).info("written to %s", ", ".join(map(str, places)))


def _check(arguments: Arguments) -> None:
    corrupted = arguments.generate or arguments.corruptions_tree is not None
    if not corrupted and not arguments.folders:
        raise UsageError("one of folders, corruptions_tree and generate must be given")
    if arguments.generate and arguments.corruptions_tree is not None:
        raise UsageError("corruptions_tree and generate must not be given together")
    if arguments.baseline is not None and not corrupted:
        raise UsageError("baseline must go with corruptions_tree or generate")
    if arguments.baseline == _ALEXNET and arguments.generate:
        raise UsageError(f"baseline must be a run with generate, got {_ALEXNET}")
    for name in ("corruptions", "images_per_class"):
        if getattr(arguments, name) and not arguments.generate:
            raise UsageError(f"{name} must go with generate")
    command_line.check_distinct("corruption", arguments.corruptions or ("all",))


def _evaluate(runs: list["TrainedRun"], arguments: Arguments) -> list["Shifts"]:
    from experiments.ood.evaluations import (
        Shifts,
        evaluate_folders,
        evaluate_generated,
        evaluate_tree,
    )
    from jaxlt.evaluation.corruptions import CORRUPTIONS

    shifts = [Shifts() for _ in runs]
    if arguments.folders:
        for one, sets in zip(shifts, evaluate_folders(runs, arguments.folders), strict=True):
            one.sets.update(sets)
    if arguments.corruptions_tree is not None:
        for one, found in zip(shifts, evaluate_tree(runs, arguments.corruptions_tree), strict=True):
            one.corrupted.update(found)
    if arguments.generate:
        clean, corrupted = evaluate_generated(
            runs,
            arguments.corruptions or CORRUPTIONS,
            images_per_class=arguments.images_per_class,
            seed=arguments.seed,
            workers=arguments.workers,
        )
        for one, evaluation, found in zip(shifts, clean, corrupted, strict=True):
            one.sets["clean"] = evaluation
            one.corrupted.update(found)
    return shifts


def _reports(
    runs: list["TrainedRun"], shifts: list["Shifts"], arguments: Arguments
) -> list["Report"]:
    from experiments.ood.report import errors_of, report
    from jaxlt.evaluation.corruptions import ALEXNET_ERRORS

    baseline: Any = None
    if arguments.baseline == _ALEXNET:
        baseline = ALEXNET_ERRORS
    elif arguments.baseline is not None:
        baseline = errors_of(shifts[-1])
    return [
        report(run, one, baseline, arguments.baseline)
        for run, one in zip(runs, shifts, strict=False)
    ]


def _write(place: Path, reports: list["Report"], arguments: Arguments) -> None:
    from experiments.ood.picture import draw_corruptions, draw_reliability
    from experiments.ood.report import format_tables
    from experiments.written_report import write_values

    (place / "table.md").write_text(format_tables(reports) + "\n")
    generated = {
        "seed": arguments.seed,
        "images_per_class": arguments.images_per_class,
    }
    values = {"generated": generated} if arguments.generate else {}
    runs = {one.label: one.values() for one in reports}
    write_values(place / "ood.json", {**values, "runs": runs})
    draw_reliability(reports, place / "reliability.png")
    if reports[0].severities:
        draw_corruptions(reports, place / "corruptions.png")


if __name__ == "__main__":
    command_line.run(main)
