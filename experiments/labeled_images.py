"""Labeled images of any data set, with the labels that a run has for their classes."""

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.image_paths import source_of
from jaxlt.data import Split, load_source
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.source import Source, is_of_files
from jaxlt.errors import UsageError, counted, first_few
from jaxlt.evaluation import Predictor
from jaxlt.recipes.recorded import RecordedRecipe

_logger = logging.getLogger(__name__)

Part = Literal["test", "val", "train"]


class LabeledImages(NamedTuple):
    """Images to evaluate a run on: numbers (n,) of some of a set, and the run's labels for them."""

    images: ImageSet
    indices: np.ndarray
    labels: np.ndarray


def labeled_images(
    dataset: str,
    predictor: Predictor,
    recorded: RecordedRecipe,
    split_file: Path,
    *,
    part: Part | None,
    skip_unknown: bool,
    skip_unreadable: bool,
) -> LabeledImages:
    """Loads a data set for a network that was trained on this or another one.

    Args:
        dataset: as of `source_of`.
        predictor: the network.
        recorded: its recipe, by whose size and way images are resized.
        split_file: of its training images, by which they are known wherever they lie.
        part: of the data set; None for the first of test, val, train that has images.
        skip_unknown: whether images of classes that the run does not know are left out.
        skip_unreadable: whether images that cannot be decoded are.

    Raises:
        UsageError: there are no such data, or images in them that are not to be left out.
    """
    dataset = source_of(dataset)
    of_files = is_of_files(dataset)
    source = load_source(
        dataset,
        image_size=predictor.image_shape[0] if of_files else recorded.data.image_size,
        resize=predictor.resize if of_files else "stretch",
        # The run has its own; published ones spare the decoding of a thousand files.
        normalization="imagenet" if of_files else "dataset",
        unreadable="skip" if skip_unreadable else "error",
    )
    name, images = _part(source, part)
    labels = _translated(source.class_names, predictor.class_names)[images.labels]
    known = np.flatnonzero(labels >= 0)
    if len(known) < len(labels):
        _say_unknown(source, images.labels[labels < 0], skip=skip_unknown)
    if not len(known):
        raise UsageError(
            f"dataset {dataset} must have images of the run's classes "
            f"({first_few(predictor.class_names)}), got none"
        )
    usable = images.readable(known) if skip_unreadable else known
    if lost := len(known) - len(usable):
        _logger.warning("skipped %s that cannot be read", counted(lost, "image"))
    _logger.info("evaluated on %s of %s", counted(len(usable), f"{name} image"), dataset)
    if name == "train" and _is_of(split_file, source):
        _logger.warning("the run was trained on some of them, which it knows better than others")
    return LabeledImages(images, usable, labels[usable])


def _is_of(split_file: Path, source: Source) -> bool:
    try:
        Split.read(split_file, source)
    except UsageError:
        return False
    return True


def _part(source: Source, part: Part | None) -> tuple[Part, ImageSet]:
    sets: dict[Part, ImageSet | None] = {
        "test": source.test,
        "val": source.val,
        "train": source.train,
    }
    filled: dict[Part, ImageSet] = {
        name: one for name, one in sets.items() if one is not None and len(one.labels)
    }
    found: Part | None = next(iter(filled), None) if part is None else part
    if found is None or found not in filled:
        raise UsageError(
            f"dataset {source.name} must have {part or 'labeled'} images, got "
            f"{' and '.join(filled) or 'none'} alone"
        )
    return found, filled[found]


def _translated(names: Sequence[str], of_run: Sequence[str]) -> np.ndarray:
    """Returns the run's label for each class of a data set by its name, -1 for an unknown one."""
    # Of a letter with an accent file systems keep one character or two.
    found = [unicodedata.normalize("NFC", name) for name in of_run]
    labels = {name: label for label, name in enumerate(found)}
    own = [unicodedata.normalize("NFC", name) for name in names]
    for which, some in (("run", found), ("dataset", own)):
        if len(set(some)) < len(some):
            twice = next(name for name in some if some.count(name) > 1)
            raise UsageError(
                f"classes of the {which} must have different names to be told apart, got two "
                f"called {twice}"
            )
    return np.array([labels.get(name, -1) for name in own])


def _say_unknown(source: Source, labels: np.ndarray, *, skip: bool) -> None:
    unknown = [source.class_names[label] for label in np.unique(labels)]
    images, classes = counted(len(labels), "image"), counted(len(unknown), "class")
    said = f"{images} of {classes} ({first_few(unknown)})"
    if not skip:
        raise UsageError(
            f"classes of {source.name} must be among the run's, got {said} that it does not know; "
            "--skip-unknown leaves them out"
        )
    _logger.warning("left out: %s that the run does not know", said)
