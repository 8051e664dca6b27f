"""A finished run: what it recorded, its network, its data."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.recorded import RecordedRecipe, recipe_of_run, recorded_recipe
from jaxlt.runs.reader import RunReader

if TYPE_CHECKING:
    from jaxlt.data import ImageSet, Source, Split
    from jaxlt.evaluation import Predictor


class TrainedRun:
    """A finished run. What is asked for is read then, by `files`; UsageError says what is wrong.

    Args:
        path: its directory.
        step: of the checkpoint that is its network; None for the newest that is whole.
        label: short name; None for the directory's.
    """

    def __init__(self, path: str | Path, step: int | None = None, label: str | None = None):
        self.path, self.step = Path(path), step
        self.label = self.path.name if label is None else label
        self.files = RunReader(self.path)

    @property
    def result(self) -> Mapping[str, Any]:
        """The last evaluation: accuracies, losses, `ece`, and `seconds` of training."""
        self.files.check_finished()
        return self.files.read_result() or {}

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the evaluations, in the order of steps."""
        return self.files.read_metrics()

    @property
    def recipe(self) -> Recipe:
        """Its recipe."""
        return recipe_of_run(self.files)

    @functools.cached_property
    def recorded(self) -> RecordedRecipe:
        """What is known of its recipe, of which parts may be the user's own."""
        return recorded_recipe(self.files)

    @functools.cached_property
    def _predictor(self) -> "Predictor":
        from jaxlt.evaluation import Predictor

        return Predictor.load(self.path, self.step)

    def predictor(self) -> "Predictor":
        """Returns the trained network, ready for image files."""
        return self._predictor

    def restore(self) -> Any:
        """Returns the trained variables, `params` and `batch_stats`."""
        return self.predictor().variables

    @property
    def class_counts(self) -> np.ndarray:
        """Training images of each class, (C,) int64."""
        return self.files.class_counts

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_counts)

    def check(self) -> None:
        """Raises UsageError unless network, recipe and split can be read and fit each other."""
        shape, size = self.predictor().image_shape, self.recorded.data.image_size
        if size not in (None, shape[0]):
            raise UsageError(
                f"{self.files.recipe_file}: data.image_size must be the height in model.json, "
                f"{shape[0]}, got {size}"
            )
        _ = self.class_counts

    @functools.cached_property
    def source(self) -> "Source":
        """The data set that it was trained on."""
        source, shape = self.recorded.data.load(), self.predictor().image_shape
        if source.image_shape != shape:
            raise UsageError(
                f"images of {source.name} must have the shape that run {self.path} was trained on, "
                f"{shape}, got {source.image_shape}"
            )
        return source

    @property
    def test_images(self) -> "ImageSet":
        """Its source's test images, if it has any."""
        images = self.source.test
        if len(images.labels) == 0:
            raise UsageError(
                f"run {self.path} must have a list of test images, got none in {self.source.name}"
            )
        return images

    @functools.cached_property
    def split(self) -> "Split":
        """The training images that it saw."""
        from jaxlt.data import Split

        return Split.read(self.files.split_file, self.source)

    def usable(self, images: "ImageSet", indices: np.ndarray) -> np.ndarray:
        """Leaves out the images that its recipe skips, being unreadable.

        Args:
            images: of its source.
            indices: numbers (n,) of some of them.
        """
        skips = self.recorded.data.unreadable == "skip"
        return images.readable(indices) if skips else indices

    def groups(self) -> dict[str, np.ndarray]:
        """Returns masks (C,) of the many-, medium- and few-shot classes of its recipe."""
        return self.recorded.evaluation.shot_groups.assign(self.class_counts)

    def by_group(self, per_class: np.ndarray) -> dict[str, float]:
        """Averages (C,) accuracies over the many-, medium- and few-shot classes of its recipe."""
        from jaxlt.evaluation import group_accuracy

        return group_accuracy(per_class, self.class_counts, self.recorded.evaluation.shot_groups)
