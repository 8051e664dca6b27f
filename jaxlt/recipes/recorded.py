"""Recipes in files, and finished runs: `TrainedRun`."""

import functools
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_json, typed
from jaxlt.recipes.data import Data
from jaxlt.recipes.methods import AnyMethod, Method
from jaxlt.recipes.network import AnyNetwork
from jaxlt.recipes.recipe import FORMAT, Evaluation, Recipe
from jaxlt.runs.differences import DataRecord, data_differences, recorded_data
from jaxlt.runs.reader import RunReader

if TYPE_CHECKING:
    from jaxlt.data import ImageSet, Source, Split
    from jaxlt.evaluation import Predictor


_logger = logging.getLogger(__name__)


class OwnPartError(UsageError):
    """A run was made of a part of the user's own, whose class is not here."""


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe from a file, such as the `recipe.json` of a run.

    UsageError says that the file is damaged, of an earlier version, or holds no recipe.

    Example:
        >>> from pathlib import Path
        >>> from jaxlt import recipes
        >>> recipe = recipes.named("sam_digits")
        >>> _ = Path("sam.json").write_text(recipes.write_recipe(recipe))
        >>> recipes.read_recipe("sam.json") == recipe
        True
    """
    return recipe_of(read_json(Path(path)), Path(path))


def recipe_of(identity: Mapping[str, Any], path: Path) -> Recipe:
    """Returns the recipe in such a file's contents; OwnPartError if a part is the user's own."""
    if not {"format", "dataset"} & identity.keys():
        raise UsageError(
            f"{path} must be a recipe, such as the recipe.json of a run, got another file"
        )
    found = identity.get("format", 0)
    if found != FORMAT:
        raise UsageError(
            f"{path} must have format {FORMAT}, got {found!r:.20}: another version of jaxlt wrote "
            "it; read it with that version, or train again with this one"
        )
    try:
        return msgspec.convert(identity.get("recipe"), Recipe)
    # Of msgspec, and of a name that is no UTF-8.
    except ValueError as error:
        found = re.fullmatch(r"Invalid value '(.*)' - at `\$\.(.*)\.name`", str(error))
        if found is None:
            raise UsageError(f"{path} must hold a recipe: {error}") from error
        raise OwnPartError(
            f"{path} must hold a recipe: {found[2]} must be a part of jaxlt's, got {found[1]}: a "
            "part of your own needs its class"
        ) from error


def write_recipe(recipe: Recipe) -> str:
    """Returns a recipe as the JSON text that `read_recipe` reads.

    Example:
        >>> from jaxlt import recipes
        >>> recipes.write_recipe(recipes.named("sam_digits"))[4:15]
        '"format": 2'
    """
    values = {"format": FORMAT, "recipe": msgspec.to_builtins(recipe), "contents": {}}
    return json.dumps(values, indent=2) + "\n"


class RecordedRecipe(msgspec.Struct, frozen=True):
    """What programs that read runs need of a recipe; a stage may hold a part of the user's own."""

    data: Data
    network: AnyNetwork
    evaluation: Evaluation
    stages: tuple[dict[str, Any], ...]

    @property
    def method_name(self) -> str:
        """Name of the first stage's method."""
        return str(self.stages[0]["method"]["name"])

    @property
    def method(self) -> Method | None:
        """The first stage's method, None for one of the user's own."""
        try:
            return msgspec.convert(self.stages[0]["method"], AnyMethod)
        except msgspec.ValidationError:
            return None

    def tail(self, class_counts: np.ndarray) -> np.ndarray:
        """Returns the method's tail (C,) bool; the few-shot classes for a method without one."""
        counts = tuple(map(int, class_counts))
        tail = None if self.method is None else self.method.tail(counts)
        return class_counts < self.evaluation.few_below if tail is None else tail


def recorded_recipe(run: RunReader) -> RecordedRecipe:
    """Returns what is known of the recipe of a run, whose data and network are jaxlt's own parts.

    UsageError says that they are not, or that `recipe.json` is damaged or of an earlier version.
    """
    try:
        recipe_of(run.identity, run.recipe_file)
    except OwnPartError as error:
        if "stages[" not in str(error):
            raise
    return typed(run.identity["recipe"], RecordedRecipe, str(run.recipe_file))


class TrainedRun:
    """A finished run. What is asked for is read then, by `files`; UsageError says what is wrong.

    Args:
        path: its directory.
        step: of the checkpoint that is its network; None for the newest that is whole.
        label: short name; None for the directory's.
        dataset: where its data are now, as `jaxlt.data.load_source` takes it; None for where they
            were.
    """

    def __init__(
        self,
        path: str | Path,
        step: int | None = None,
        label: str | None = None,
        dataset: str | None = None,
    ):
        self.path, self.step, self.dataset = Path(path), step, dataset
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
        return recipe_of(self.files.identity, self.files.recipe_file)

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
        """The data set that it was trained on; UsageError for another, or if it is not there."""
        shape = self.files.description.image_shape
        try:
            source = self.recorded.data.load(self.dataset)
        except UsageError as error:
            now = f"give where the data of run {self.path} are now by --dataset SOURCE"
            raise UsageError(f"{error}; {now}") from error
        if source.image_shape != shape:
            raise UsageError(
                f"images of {source.name} must have the shape that run {self.path} was trained on, "
                f"{shape}, got {source.image_shape}"
            )
        self._check_data(source)
        return source

    def _check_data(self, source: "Source") -> None:
        from jaxlt.data import Split
        from jaxlt.recipes.run_directory import data_identity

        known = self.known_data
        if known.class_names not in ((), source.class_names):
            others = data_differences(known, {"class_names": source.class_names})
        else:
            split = Split.read(self.files.split_file, source)
            images = self.recorded.evaluation.images
            here = data_identity(self.recorded.data, images, source, split)
            others = data_differences(known, here)
        if others:
            raise UsageError(
                f"dataset must be that of run {self.path}, got others in {source.name}: {others}; "
                "give where its data are now by --dataset SOURCE"
            )

    @functools.cached_property
    def known_data(self) -> DataRecord:
        """What it kept of its data, to tell them from others."""
        return recorded_data(self.path, self.files.identity)

    @property
    def tested(self) -> "tuple[ImageSet, np.ndarray]":
        """Its source's test images and their numbers (n,); without any, those of `evaluated`."""
        images = self.source.test
        if len(images.labels):
            return images, np.arange(len(images.labels))
        told = "%s has no test images: those that run %s was evaluated on take their place"
        _logger.info(told, self.source.name, self.path)
        return self.evaluated

    @functools.cached_property
    def split(self) -> "Split":
        """The training images that it saw."""
        from jaxlt.data import Split

        return Split.read(self.files.split_file, self.source)

    @property
    def evaluated(self) -> "tuple[ImageSet, np.ndarray]":
        """The images that it was evaluated on, and the numbers (n,) of those that were."""
        evaluation = self.recorded.evaluation
        images, indices = self.recorded.data.evaluated(self.source, self.split, evaluation.images)
        return images, np.arange(len(images.labels)) if indices is None else indices

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
