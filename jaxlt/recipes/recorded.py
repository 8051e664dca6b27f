"""The recipe of a run as its directory tells it, whoever's parts the run was made of."""

import re
from typing import Any

import msgspec
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.typed_json import typed
from jaxlt.recipes.data import Data
from jaxlt.recipes.methods import AnyMethod, Method
from jaxlt.recipes.network import AnyNetwork
from jaxlt.recipes.recipe import Evaluation, Recipe, recipe_of
from jaxlt.runs.reader import RunReader


class OwnPartError(UsageError):
    """A run was made of a part of the user's own, whose class is not here."""


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


def recipe_of_run(run: RunReader) -> Recipe:
    """Returns the recipe of a run.

    Raises:
        OwnPartError: a part of it is the user's own.
        UsageError: `recipe.json` is damaged or of an earlier version.
    """
    try:
        return recipe_of(run.identity, run.recipe_file)
    except UsageError as error:
        found = re.fullmatch(r"Invalid value '(.*)' - at `\$\.(.*)\.name`", str(error.__cause__))
        if found is None:
            raise
        raise OwnPartError(
            f"{run.recipe_file}: {found[2]} must be a part of jaxlt's, got {found[1]}, one of your "
            "own: this needs its class"
        ) from error


def recorded_recipe(run: RunReader) -> RecordedRecipe:
    """Returns what is known of the recipe of a run.

    Raises:
        UsageError: `recipe.json` is damaged or of an earlier version, or the source, the network
            or another part of the data is the user's own.
    """
    try:
        recipe_of_run(run)
    except OwnPartError as error:
        if "stages[" not in str(error):
            raise
    return typed(run.identity["recipe"], RecordedRecipe, str(run.recipe_file))
