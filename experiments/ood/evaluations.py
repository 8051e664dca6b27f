"""What runs do on shifted images: image folders, ImageNet-C's tree, corruptions made here."""

import contextlib
import dataclasses
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from experiments.loaded_runs import chunks, first_of_each_class
from jaxlt.data import Resize
from jaxlt.errors import UsageError
from jaxlt.evaluation import ConfidenceBins, evaluate
from jaxlt.evaluation.class_folders import LabeledFiles, find_class_folders, find_corruption_tree
from jaxlt.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from jaxlt.recipes.recorded import TrainedRun

if TYPE_CHECKING:
    from experiments.ood.__main__ import Arguments

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What is kept of an evaluation, whose confusion matrix may be of 8142 by 8142 classes."""

    values: dict[str, Any]
    calibration: ConfidenceBins


@dataclasses.dataclass(frozen=True)
class Shifts:
    """One run's evaluations of sets of images, by name, and by corruption and severity."""

    run: TrainedRun
    sets: dict[str, Measured] = dataclasses.field(default_factory=dict)
    corrupted: dict[str, dict[int, Measured]] = dataclasses.field(default_factory=dict)

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """For each corruption the errors at the severities 1 to 5, (5,) in [0, 1]."""
        return {
            name: np.array([1 - found[severity].values["accuracy"] for severity in SEVERITIES])
            for name, found in self.corrupted.items()
        }


def check_alike(runs: Sequence[TrainedRun], *, same_data: bool) -> None:
    """Raises UsageError unless all runs can be shown the same images, `same_data` the first's."""
    first = runs[0]
    for run in runs[1:]:
        own, other = run.predictor(), first.predictor()
        same = {
            "classes": own.class_names == other.class_names,
            "image shape": own.image_shape == other.image_shape,
            "resize": own.resize == other.resize,
            "dataset": not same_data or _same_images(run, first),
        }
        for what, alike in same.items():
            if not alike:
                raise UsageError(
                    f"runs evaluated together must have the same {what}, those of {run.path} and "
                    f"{first.path} differ"
                )


def _same_images(run: TrainedRun, first: TrainedRun) -> bool:
    """Whether runs were evaluated on the same images; where not recorded, from the same place."""
    one, other = run.known_data.evaluated, first.known_data.evaluated
    if one is None or other is None:
        return run.recorded.data.name == first.recorded.data.name
    return one == other


def evaluate_folders(shifts: Sequence[Shifts], directories: Sequence[Path]) -> None:
    """Evaluates each run on each `DIR/CLASS/` tree."""
    names = [directory.resolve().name for directory in directories]
    if len(set(names)) < len(names):
        raise UsageError(f"folders must have different names, got {' '.join(names)}")
    first = shifts[0].run
    classes = first.predictor().class_names, first.predictor().class_numbers
    found = [find_class_folders(directory, *classes) for directory in directories]
    for name, files in zip(names, found, strict=True):
        for one, measured in _evaluated(shifts, _of_files(first, files)):
            one.sets[name] = measured


def evaluate_tree(shifts: Sequence[Shifts], directory: Path) -> None:
    """Evaluates each run on ImageNet-C's tree."""
    first = shifts[0].run
    classes = first.predictor().class_names, first.predictor().class_numbers
    tree = find_corruption_tree(directory, *classes)
    # Its files are the middle of ImageNet's images at 224 pixels already: nothing is cut off.
    _evaluate_corruptions(
        shifts, tree, lambda name, severity: _of_files(first, tree[name][severity], "stretch")
    )


def evaluate_generated(shifts: Sequence[Shifts], arguments: "Arguments") -> None:
    """Evaluates each run on its test set as it is, and on corruptions of it made once for all."""
    made = {
        name: {severity: Corruption(name, severity, arguments.seed) for severity in SEVERITIES}
        for name in arguments.corruptions or CORRUPTIONS
    }
    first = shifts[0].run
    images, tested = first.tested
    usable = first.usable(images, tested)
    indices = usable[first_of_each_class(images.labels[usable], arguments.images_per_class)]
    with _mapping(arguments.workers) as mapped:
        originals = ((images.load(chunk), images.labels[chunk]) for chunk in chunks(indices))
        for one, measured in _evaluated(shifts, originals):
            one.sets["clean"] = measured

        def corrupted(name: str, severity: int) -> Batches:
            for chunk in chunks(indices):
                batch = mapped(made[name][severity], images.load(chunk), chunk)
                yield np.stack(list(batch)), images.labels[chunk]

        _evaluate_corruptions(shifts, made, corrupted)


def _evaluate_corruptions(
    shifts: Sequence[Shifts], names: Iterable[str], batches_of: Callable[[str, int], Batches]
) -> None:
    for name in names:
        for severity in SEVERITIES:
            for one, measured in _evaluated(shifts, batches_of(name, severity)):
                one.corrupted.setdefault(name, {})[severity] = measured
        error = 100 * np.mean([one.errors[name] for one in shifts])
        logging.getLogger(__name__).info(
            "%s: error %.2f %%, mean over severities and runs", name, error
        )


def _evaluated(shifts: Sequence[Shifts], batches: Batches) -> list[tuple[Shifts, Measured]]:
    """Evaluates all runs in one walk over the images, which may be costly to make."""
    logits: list[list[np.ndarray]] = [[] for _ in shifts]
    labels = []
    for images, batch_labels in batches:
        labels.append(batch_labels)
        for one, rows in zip(shifts, logits, strict=True):
            rows.append(one.run.predictor().logits(images))
    together = np.concatenate(labels)
    return [
        (one, _measured(one.run, np.concatenate(rows), together))
        for one, rows in zip(shifts, logits, strict=True)
    ]


def _measured(run: TrainedRun, logits: np.ndarray, labels: np.ndarray) -> Measured:
    evaluation = evaluate(jnp.asarray, [(logits, labels)], run.num_classes)
    values = {
        "images": len(labels),
        "accuracy": evaluation.accuracy,
        "balanced_accuracy": evaluation.balanced_accuracy,
        **run.by_group(evaluation.per_class),
        "ece": evaluation.calibration.ece,
        "maximum_calibration_error": evaluation.calibration.mce,
        "per_class": evaluation.per_class.tolist(),
    }
    return Measured(values, evaluation.calibration)


def _of_files(run: TrainedRun, files: LabeledFiles, resize: Resize | None = None) -> Batches:
    for paths, labels in zip(chunks(files.paths), chunks(files.labels), strict=True):
        yield run.predictor().read_files(paths, resize), labels


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
