"""Recipes that differ from another in a few fields, which are unique enough to be named alone."""

from typing import Any, TypeVar

from jaxlt.recipes.data import Data
from jaxlt.recipes.images import Augmentation
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.part import own_fields
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import Stage

_Varied = TypeVar("_Varied", Recipe, Stage)
_PARTS_OF_STAGE = {"optimizer": Optimizer, "augmentation": Augmentation}


def vary(base: _Varied, **fields: Any) -> _Varied:
    """Returns a recipe, or a stage, with some fields changed.

    Args:
        base: what is changed.
        **fields: of the recipe, of its data, of its first stage, or of that stage's optimizer and
            augmentation, by their own names.
    """
    if isinstance(base, Stage):
        for name, part in _PARTS_OF_STAGE.items():
            if inner := {field: fields.pop(field) for field in own_fields(part) if field in fields}:
                fields[name] = fields.get(name, getattr(base, name)).replace(**inner)
        return base.replace(**fields)
    changes = {name: fields.pop(name) for name in own_fields(Recipe) if name in fields}
    if data := {name: fields.pop(name) for name in own_fields(Data) if name in fields}:
        changes["data"] = changes.get("data", base.data).replace(**data)
    stages = changes.get("stages", base.stages)
    if fields:
        changes["stages"] = (vary(stages[0], **fields), *stages[1:])
    return base.replace(**changes)


def followed_by(base: Recipe, *stages: Any) -> Recipe:
    """Returns a recipe's first stage with other stages after it."""
    return base.replace(stages=(base.first, *stages))
