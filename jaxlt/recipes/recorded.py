"""Recipes in files: what a recipe's own file holds, and what a run's directory tells of it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_json
from jaxlt.files.typed_json import typed
from jaxlt.recipes.data import Data
from jaxlt.recipes.methods import AnyMethod, Method
from jaxlt.recipes.network import AnyNetwork
from jaxlt.recipes.recipe import FORMAT, Evaluation, Recipe
from jaxlt.runs.reader import RunReader


class OwnPartError(UsageError):
    """A run was made of a part of the user's own, whose class is not here."""


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe from a file, such as the `recipe.json` of a run.

    UsageError says that the file is damaged, of an earlier version, or holds no recipe.
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
    """Returns a recipe as the JSON text that `read_recipe` reads."""
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


def recipe_of_run(run: RunReader) -> Recipe:
    """Returns the recipe of a run; raises as `recipe_of`."""
    return recipe_of(run.identity, run.recipe_file)


def recorded_recipe(run: RunReader) -> RecordedRecipe:
    """Returns what is known of the recipe of a run, whose data and network are jaxlt's own parts.

    UsageError says that they are not, or that `recipe.json` is damaged or of an earlier version.
    """
    try:
        recipe_of_run(run)
    except OwnPartError as error:
        if "stages[" not in str(error):
            raise
    return typed(run.identity["recipe"], RecordedRecipe, str(run.recipe_file))
