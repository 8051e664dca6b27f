"""What runs do on shifted images: image folders, ImageNet-C's tree, corruptions made here."""

import contextlib
import dataclasses
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Self

import jax.numpy as jnp
import numpy as np

from experiments.loaded_runs import chunks, first_of_each_class
from jaxlt.data import ImageSet, Resize
from jaxlt.errors import UsageError
from jaxlt.evaluation import ConfidenceBins, Evaluated, evaluate
from jaxlt.evaluation.class_folders import (
    LabelledFiles,
    find_class_folders,
    find_corruption_tree,
)
from jaxlt.evaluation.corruptions import SEVERITIES, Corruption
from jaxlt.recipes.trained_run import TrainedRun

_logger = logging.getLogger(__name__)

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
Corrupted = dict[str, dict[int, "Measured"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What is kept of an `Evaluated`, whose confusion matrix may be of 8142 by 8142 classes."""

    images: int
    accuracy: float
    balanced_accuracy: float
    per_class: np.ndarray
    calibration: ConfidenceBins

    @classmethod
    def of(cls, evaluation: Evaluated) -> Self:
        """Takes the measures out of an evaluation."""
        return cls(
            int(evaluation.confusion.sum()),
            evaluation.accuracy,
            evaluation.balanced_accuracy,
            evaluation.per_class,
            evaluation.calibration,
        )


@dataclasses.dataclass(frozen=True)
class Shifts:
    """The evaluations of one run.

    Attributes:
        sets: by name, the clean test set where corruptions are made of it, and each folder.
        corrupted: by corruption and severity; empty without corruptions.
    """

    sets: dict[str, Measured] = dataclasses.field(default_factory=dict)
    corrupted: Corrupted = dataclasses.field(default_factory=dict)


def check_alike(runs: Sequence[TrainedRun], *, same_data: bool) -> None:
    """Raises UsageError unless the runs can be shown the same images.

    Args:
        runs: at least one.
        same_data: whether it is the data set of the first run that they are shown.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("classes", run.predictor().class_names, first.predictor().class_names),
            ("image shape", run.predictor().image_shape, first.predictor().image_shape),
            ("resize", run.predictor().resize, first.predictor().resize),
            ("dataset", run.recorded.data.name, first.recorded.data.name),
        ):
            if ours != theirs and (same_data or what != "dataset"):
                raise UsageError(
                    f"runs evaluated together must have the same {what}, those of {run.path} and "
                    f"{first.path} differ"
                )


def evaluate_folders(
    runs: Sequence[TrainedRun], directories: Sequence[Path]
) -> list[dict[str, Measured]]:
    """Evaluates each run on each `DIR/CLASS/` tree.

    Raises:
        UsageError: two directories have one name, an image cannot be read, or as
            `find_class_folders`.
    """
    names = [directory.resolve().name for directory in directories]
    if len(set(names)) < len(names):
        raise UsageError(f"folders must have different names, got {' '.join(names)}")
    classes = runs[0].predictor().class_names, runs[0].predictor().class_numbers
    found = {
        name: find_class_folders(directory, *classes)
        for name, directory in zip(names, directories, strict=True)
    }
    evaluated = {name: _evaluate_all(runs, _of_files(runs[0], found[name])) for name in names}
    return _by_run(runs, evaluated)


def evaluate_tree(runs: Sequence[TrainedRun], directory: Path) -> list[Corrupted]:
    """Evaluates each run on ImageNet-C's tree; raises UsageError as `find_corruption_tree`.

    Its files are the middle of ImageNet's images at 224 pixels already, so nothing is cut off.
    """
    first = runs[0].predictor()
    tree = find_corruption_tree(directory, first.class_names, first.class_numbers)
    return _each_corruption(
        runs, tree, lambda name, severity: _of_files(runs[0], tree[name][severity], "stretch")
    )


def evaluate_generated(
    runs: Sequence[TrainedRun],
    corruptions: Sequence[str],
    *,
    images_per_class: int | None,
    seed: int,
    workers: int,
) -> tuple[list[Measured], list[Corrupted]]:
    """Evaluates each run on its test set, and on corruptions of it that are made once for all.

    Args:
        runs: of one data set.
        corruptions: names, each of which is made at the severities 1 to 5.
        images_per_class: takes only the first so many test images of each class; None takes all.
        seed: of the corruptions.
        workers: processes that make them; the images are the same with any number.

    Returns:
        For each run its evaluation of the images as they are, and of each corruption.

    Raises:
        UsageError: as `Corruption`, or the data cannot be loaded.
    """
    made = {name: {s: Corruption(name, s, seed) for s in SEVERITIES} for name in corruptions}
    images = runs[0].test_images
    usable = runs[0].usable(images, np.arange(len(images.labels)))
    indices = usable[first_of_each_class(images.labels[usable], images_per_class)]
    with _mapping(workers) as mapped:
        clean = _evaluate_all(runs, _of_images(images, indices))
        corrupted = _each_corruption(
            runs,
            made,
            lambda name, severity: (
                (np.stack(list(mapped(made[name][severity], batch, numbers))), labels)
                for numbers, (batch, labels) in zip(
                    chunks(indices), _of_images(images, indices), strict=True
                )
            ),
        )
    return clean, corrupted


def _each_corruption(
    runs: Sequence[TrainedRun],
    names: Iterable[str],
    batches_of: Callable[[str, int], Batches],
) -> list[Corrupted]:
    corrupted: list[Corrupted] = [{} for _ in runs]
    for name in names:
        evaluated = {s: _evaluate_all(runs, batches_of(name, s)) for s in SEVERITIES}
        for one, evaluations in zip(corrupted, _by_run(runs, evaluated), strict=True):
            one[name] = evaluations
        error = 100 * np.mean([[1 - e.accuracy for e in found] for found in evaluated.values()])
        _logger.info("%s: error %.2f %%, mean over severities and runs", name, error)
    return corrupted


def _evaluate_all(runs: Sequence[TrainedRun], batches: Batches) -> list[Measured]:
    """Evaluates all runs in one walk over the images, which may be costly to make."""
    logits: list[list[np.ndarray]] = [[] for _ in runs]
    labels = []
    for images, batch_labels in batches:
        labels.append(batch_labels)
        for run, rows in zip(runs, logits, strict=True):
            rows.append(run.predictor().logits(images))
    together = np.concatenate(labels)
    return [
        Measured.of(evaluate(jnp.asarray, [(np.concatenate(rows), together)], run.num_classes))
        for run, rows in zip(runs, logits, strict=True)
    ]


def _by_run(
    runs: Sequence[TrainedRun], evaluated: Mapping[str, Sequence[Measured]] | Mapping
) -> list[dict]:
    return [
        {key: evaluations[number] for key, evaluations in evaluated.items()}
        for number in range(len(runs))
    ]


def _of_files(run: TrainedRun, files: LabelledFiles, resize: Resize | None = None) -> Batches:
    for paths, labels in zip(chunks(files.paths), chunks(files.labels), strict=True):
        yield run.predictor().read_files(paths, resize), labels


def _of_images(images: ImageSet, indices: np.ndarray) -> Batches:
    for numbers in chunks(indices):
        yield images.load(numbers), images.labels[numbers]


@contextlib.contextmanager
def _mapping(workers: int) -> Iterator[Callable]:
    """Gives `map`, or one over so many processes."""
    if workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        yield map
        return
    # A fork of a process in which JAX runs threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield lambda function, *batches: pool.map(function, *batches, chunksize=16)
