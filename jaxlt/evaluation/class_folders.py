"""Image folders of other data sets with the classes that a network was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlt.data.sources.image_files import (
    SearchedPlaces,
    check_apart,
    class_images,
    class_name,
    log_passed_over,
    subdirectories,
)
from jaxlt.errors import UsageError, first_few
from jaxlt.evaluation.corruptions import KNOWN_CORRUPTIONS, SEVERITIES


class LabeledFiles(NamedTuple):
    """N image files, ordered by class and name, and their labels, (N,) int64."""

    paths: list[Path]
    labels: np.ndarray


def find_class_folders(
    directory: Path, class_names: Sequence[str], class_numbers: Sequence[int] | None = None
) -> LabeledFiles:
    """Finds the images of `directory/CLASS/`, also in directories below; see `image_files`.

    The directories are named after classes, as in ImageNet-Sketch, or all numbered, as in
    ImageNetV2. A class need not have a directory.

    Args:
        directory: the one that holds the classes.
        class_names: names of the network's classes, by label, as its run's reader has them.
        class_numbers: by label, what numbered directories call the classes; None for the labels
            themselves.

    Raises:
        UsageError: there is no such directory, a class in it is none of the network's or has no
            image.
    """
    folders, passed_over = subdirectories(directory, "a class")
    labels = _labels(list(map(class_name, folders)), class_names, class_numbers, directory)
    check_apart(folders)
    searched = SearchedPlaces(folders)
    found: list[tuple[Path, int]] = []
    for label, folder in sorted(zip(labels, folders, strict=True)):
        images = class_images(folder, searched)
        passed_over += images.passed_over
        found += [(path, label) for path in images.paths]
    log_passed_over(directory, passed_over)
    return LabeledFiles([path for path, _ in found], np.array([label for _, label in found]))


def find_corruption_tree(
    directory: Path, class_names: Sequence[str], class_numbers: Sequence[int] | None = None
) -> dict[str, dict[int, LabeledFiles]]:
    """Finds the images of ImageNet-C, `directory/CORRUPTION/SEVERITY/CLASS/`.

    Args:
        directory: the one that holds the corruptions, some or all of the 15 and the 4 extra ones.
        class_names: names of the network's classes, by label.
        class_numbers: see `find_class_folders`.

    Returns:
        Files by corruption, in the order of the paper, and by severity.

    Raises:
        UsageError: a directory is no corruption's, a corruption lacks one of the severities 1 to 5
            or has another, or as `find_class_folders`.
    """
    folders, passed_over = subdirectories(directory, "a corruption")
    found = {folder.name: folder for folder in folders}
    if unknown := sorted(set(found) - set(KNOWN_CORRUPTIONS)):
        raise UsageError(
            f"directory {directory / unknown[0]} must be named after a corruption of ImageNet-C: "
            f"{', '.join(KNOWN_CORRUPTIONS)}"
        )
    tree: dict[str, dict[int, LabeledFiles]] = {}
    for folder in (found[name] for name in KNOWN_CORRUPTIONS if name in found):
        inside, beside = subdirectories(folder, "a severity")
        passed_over += beside
        severities = sorted(one.name for one in inside)
        if severities != [str(severity) for severity in SEVERITIES]:
            shown = ", ".join(severities)
            raise UsageError(f"directory {folder} must hold the severities 1 to 5, got {shown}")
        tree[folder.name] = {
            severity: find_class_folders(folder / str(severity), class_names, class_numbers)
            for severity in SEVERITIES
        }
    log_passed_over(directory, passed_over)
    return tree


def _labels(
    names: Sequence[str],
    class_names: Sequence[str],
    class_numbers: Sequence[int] | None,
    directory: Path,
) -> list[int]:
    by_name = {name: label for label, name in enumerate(class_names)}
    found = [by_name.get(name, -1) for name in names]
    if min(found) >= 0:
        return found
    numbers = [int(name) if name.isdecimal() else -1 for name in names]
    if all(0 <= number < len(class_names) for number in numbers):
        if len(set(numbers)) < len(numbers):
            raise UsageError(
                f"image folder {directory} must have one directory a class number, got two of one"
            )
        order = list(class_numbers or range(len(class_names)))
        return [order.index(number) for number in numbers]
    unknown = names[found.index(-1)]
    raise UsageError(
        f"class directories of {directory} must be named after classes of the run "
        f"({first_few(class_names, 3)}) or numbered 0..{len(class_names) - 1}, got {unknown}"
    )
