"""Named recipes, each with its source and, where there is one, its published result."""

from experiments.recipe import Recipe
from experiments.recipes import cifar, flattened, standin
from experiments.recipes.published import PUBLISHED as PUBLISHED
from experiments.recipes.published import Published as Published

RECIPES: dict[str, Recipe] = {**cifar.RECIPES, **flattened.RECIPES, **standin.RECIPES}
SOURCES: dict[str, str] = {**cifar.SOURCES, **flattened.SOURCES, **standin.SOURCES}
