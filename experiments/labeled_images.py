"""Labeled images of any data set, with the labels that a run has for their classes."""

import contextlib
import difflib
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from experiments.image_paths import source_of
from jaxlt.data import Split, load_source
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.source import Source, is_of_files
from jaxlt.errors import UsageError, counted, first_few
from jaxlt.evaluation import Predictor
from jaxlt.recipes.recorded import TrainedRun
from jaxlt.recipes.run_directory import known_by
from jaxlt.runs.differences import ImagesRecord

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
    run: TrainedRun,
    *,
    part: Part | None,
    skip_unknown: bool,
    skip_unreadable: bool,
) -> LabeledImages:
    """Loads a data set for a network that was trained on this or another one.

    Args:
        dataset: as of `source_of`.
        predictor: the network.
        run: whose it is; known are its recipe and the images that it was trained and evaluated on.
        part: of the data set; None for what the run was evaluated on where these are the run's own
            data, wherever they lie, else for the first of test, val, train that has images.
        skip_unknown: whether images of classes that the run does not know are left out.
        skip_unreadable: whether images that cannot be decoded are.

    Raises:
        UsageError: there are no such data, or images in them that are not to be left out.
    """
    dataset, data = source_of(dataset), run.recorded.data
    of_files = is_of_files(dataset)
    source = load_source(
        dataset,
        image_size=predictor.image_shape[0] if of_files else data.image_size,
        resize=predictor.resize if of_files else "stretch",
        # The run has its own; published ones spare the decoding of a thousand files.
        normalization="imagenet" if of_files else "dataset",
        unreadable="skip" if skip_unreadable else "error",
        relabel=data.relabel,
    )
    own = _evaluated(run, source) if part is None else None
    if own is None:
        name, images = _part(source, part)
        numbers, what, whose = np.arange(len(images.labels)), f"{name} image", ""
    else:
        images, numbers = own
        what, whose = "image", ", those that the run was evaluated on"
        skip_unreadable = skip_unreadable or data.unreadable == "skip"
    labels = _translated(source.class_names, predictor.class_names)[images.labels]
    known = numbers[labels[numbers] >= 0]
    if len(known) < len(numbers):
        unknown = images.labels[labels < 0]
        _say_unknown(source, unknown, predictor.class_names, skip=skip_unknown)
    if not len(known):
        raise UsageError(
            f"dataset {dataset} must have images of the run's classes "
            f"({first_few(predictor.class_names)}), got none"
        )
    usable = images.readable(known) if skip_unreadable else known
    if lost := len(known) - len(usable):
        _logger.warning("skipped %s that cannot be read", counted(lost, "image"))
    _logger.info("evaluated on %s of %s%s", counted(len(usable), what), dataset, whose)
    if own is None and (seen := np.isin(usable, _trained(run, source, images)).sum()):
        told = "the run was trained on %d of them, which it knows better than others"
        _logger.warning(told, seen)
    return LabeledImages(images, usable, labels[usable])


def _evaluated(run: TrainedRun, source: Source) -> tuple[ImageSet, np.ndarray] | None:
    """Returns what a run was evaluated on, where a data set is known to be the run's own."""
    recorded = run.recorded
    try:
        split = Split.read(run.files.split_file, source)
        images, some = recorded.data.evaluated(source, split, recorded.evaluation.images)
    except UsageError:
        return None
    known, numbers = run.known_data, np.arange(len(images.labels)) if some is None else some
    is_own = (
        known.class_names == source.class_names
        and _is_recorded(known.evaluated, images, numbers)
        and _is_recorded(known.train, source.train, split.indices)
    )
    return (images, numbers) if is_own else None


def _trained(run: TrainedRun, source: Source, images: ImageSet) -> np.ndarray:
    """Returns the numbers (n,) of a part's images that a run is known to be trained on.

    It keeps one digest of all that it was trained on: among others they cannot be told.
    """
    numbers = np.arange(len(images.labels))
    if images is source.train:
        with contextlib.suppress(UsageError):
            numbers = Split.read(run.files.split_file, source).indices
    return numbers if _is_recorded(run.known_data.train, images, numbers) else numbers[:0]


def _is_recorded(record: ImagesRecord | None, images: ImageSet, numbers: np.ndarray) -> bool:
    if record is None or record.images != len(numbers):
        return False
    return record == msgspec.convert(known_by(images, numbers), ImagesRecord)


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
    labels = {name: label for label, name in enumerate(of_run)}
    for which, some in (("run", of_run), ("dataset", names)):
        if len(set(some)) < len(some):
            twice = next(name for name in some if some.count(name) > 1)
            raise UsageError(
                f"classes of the {which} must have different names to be told apart, got two "
                f"called {twice}"
            )
    return np.array([labels.get(name, -1) for name in names])


def _say_unknown(source: Source, labels: np.ndarray, of_run: Sequence[str], *, skip: bool) -> None:
    unknown = [source.class_names[label] for label in np.unique(labels)]
    images, classes = counted(len(labels), "image"), counted(len(unknown), "class")
    said = f"{images} of {classes} ({first_few(unknown)})"
    if not skip:
        nearest = (
            f"; the nearest to {name} is {near[0]}"
            for name in unknown
            if (near := difflib.get_close_matches(name, of_run, 1))
        )
        raise UsageError(
            f"classes of {source.name} must be among the run's, got {said} that it does not know"
            f"{next(nearest, '')}; --skip-unknown leaves them out"
        )
    _logger.warning("left out: %s that the run does not know", said)
