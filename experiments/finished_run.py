"""A finished run as the programs that evaluate it need it: network, data, groups of classes."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments.command_line import check_distinct
from experiments.fields import Fields
from experiments.recipe import Recipe
from jaxlt.data import ImageSet, Source, Split, load_source
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor, ShotGroups, group_accuracy
from jaxlt.files.typed_values import check_fields
from jaxlt.runs.workdir import is_step

_CHUNK = 128
_READING_FIELDS = ("resize", "normalization", "unreadable", "relabel")


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run's directory, read.

    Attributes:
        path: the directory.
        step: of its checkpoint; None for the newest.
        label: short name, different from those of other runs of the call.
        predictor: its trained network.
        recipe: contents of its `recipe.json`.
        class_counts: (C,) training images of each class.
    """

    path: Path
    step: int | None
    label: str
    predictor: Predictor
    recipe: dict[str, Any]
    class_counts: np.ndarray

    @classmethod
    def load(cls, path: Path, label: str) -> Self:
        """Reads a run's directory, or one of its `checkpoints/STEP`.

        Raises:
            UsageError: it is no finished run's.
        """
        path, step = directory_and_step(path)
        predictor = Predictor.load(path, step)
        recipe = Fields.read(path / "recipe.json")
        recipe.text("dataset")
        for name in ("many_above", "few_below"):
            recipe.count(name)
        if "image_size" not in recipe or recipe.values["image_size"] is not None:
            size = recipe.count("image_size")
            if size != predictor.image_shape[0]:
                raise UsageError(
                    f"{path / 'recipe.json'} must have as image_size the height in model.json, "
                    f"{predictor.image_shape[0]}, it has {size}"
                )
        try:
            check_fields(
                {name: recipe.values[name] for name in _READING_FIELDS & recipe.values.keys()},
                Recipe,
            )
        except TypeError as error:
            raise UsageError(f"{path / 'recipe.json'} must be a recipe: {error}") from error
        counts = Fields.read(path / "split.json").counts("class_counts")
        if counts.shape != (len(predictor.class_names),):
            raise UsageError(
                f"{path / 'split.json'} must have a count for each of the "
                f"{len(predictor.class_names)} classes in model.json, it has {counts.size}"
            )
        return cls(path, step, label, predictor, dict(recipe.values), counts)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_counts)

    @functools.cached_property
    def source(self) -> Source:
        """The data set that it was trained on."""
        # Runs of an earlier version say nothing of these.
        how = {name: self.recipe[name] for name in _READING_FIELDS if name in self.recipe}
        source = load_source(self.recipe["dataset"], image_size=self.recipe["image_size"], **how)
        if source.image_shape != self.predictor.image_shape:
            raise UsageError(
                f"dataset {source.name} has images of shape {source.image_shape} now, run "
                f"{self.path} was trained on images of shape {self.predictor.image_shape}"
            )
        return source

    @property
    def test_images(self) -> ImageSet:
        """Its source's test images.

        Raises:
            UsageError: there are none, as the run was evaluated on held-out training images.
        """
        images = self.source.test
        if len(images.labels) == 0:
            raise UsageError(
                f"run {self.path} must have a list of test images, {self.source.name} has none"
            )
        return images

    @functools.cached_property
    def split(self) -> Split:
        """The training images that it saw."""
        return Split.read(self.path / "split.json", self.source)

    def usable(self, images: ImageSet, indices: np.ndarray) -> np.ndarray:
        """Leaves out of image numbers (n,) those that its recipe skips, being unreadable."""
        skips = self.recipe.get("unreadable") == "skip"
        return images.readable(indices) if skips else indices

    def by_group(self, per_class: np.ndarray) -> dict[str, float]:
        """Averages (C,) accuracies over the many-, medium- and few-shot classes of its recipe."""
        groups = ShotGroups(self.recipe["many_above"], self.recipe["few_below"])
        return group_accuracy(per_class, self.class_counts, groups)


def load_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Reads the directories of several runs; their labels are what their paths differ in.

    Raises:
        UsageError: none is named, one is named twice, or one is no finished run's.
    """
    check_distinct("checkpoint", [path.absolute() for path in paths])
    found = [directory_and_step(path.absolute()) for path in paths]
    common = Path(os.path.commonpath([directory.parent for directory, _ in found]))
    return [
        FinishedRun.load(path, with_step(str(directory.relative_to(common)), step))
        for path, (directory, step) in zip(paths, found, strict=True)
    ]


def directory_and_step(path: Path) -> tuple[Path, int | None]:
    """Tells a run's directory, of no step, from one of its `checkpoints/STEP`.

    Raises:
        UsageError: what stands for STEP is no number.
    """
    if path.parent.name != "checkpoints" or (path / "model.json").exists():
        return path, None
    if not is_step(path.name):
        raise UsageError(f"checkpoint {path} must be named by its step, a number")
    return path.parent.parent, int(path.name)


def with_step(label: str, step: int | None) -> str:
    """Returns a label that names the step, where there is one."""
    return label if step is None else f"{label}, step {step}"


def first_of_each_class(labels: np.ndarray, images_per_class: int | None) -> np.ndarray:
    """Returns the places in labels (n,) of the first so many of each class, in order.

    Raises:
        UsageError: that is less than one; None takes all.
    """
    if images_per_class is None:
        return np.arange(len(labels))
    if images_per_class < 1:
        raise UsageError(f"images_per_class must be at least 1, got {images_per_class}")
    firsts = [np.flatnonzero(labels == c)[:images_per_class] for c in np.unique(labels)]
    return np.sort(np.concatenate(firsts))


def in_chunks(
    function: Callable[[np.ndarray], np.ndarray], images: ImageSet, indices: np.ndarray
) -> np.ndarray:
    """Applies a function of uint8 images (B, H, W, C) to those at `indices`, some at a time."""
    return np.concatenate([function(images.load(chunk)) for chunk in chunks(indices)])


def chunks(sequence: Any) -> Iterator[Any]:
    """Cuts an array or a list into pieces that fit in memory as images."""
    for start in range(0, len(sequence), _CHUNK):
        yield sequence[start : start + _CHUNK]
