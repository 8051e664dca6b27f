"""Named recipes, each with its source and, where there is one, its published result."""

from experiments.recipe import Recipe
from experiments.recipes import cifar, clip, flattened, large_scale, standin
from experiments.recipes.published import PUBLISHED as PUBLISHED
from experiments.recipes.published import Published as Published

RECIPES: dict[str, Recipe] = {
    **cifar.RECIPES,
    **flattened.RECIPES,
    **standin.RECIPES,
    **large_scale.RECIPES,
    **clip.RECIPES,
}
SOURCES: dict[str, str] = {
    **cifar.SOURCES,
    **flattened.SOURCES,
    **standin.SOURCES,
    **large_scale.SOURCES,
    **clip.SOURCES,
}
_LARGE = ("imagenet_lt", "places_lt", "inaturalist")
# The recipes that each program of `python -m experiments.NAME` offers.
BENCHMARKS: dict[str, dict[str, Recipe]] = {
    "cifar_lt": {**cifar.RECIPES, **flattened.RECIPES, **standin.RECIPES},
    **{name: {n: r for n, r in large_scale.RECIPES.items() if n.endswith(name)} for name in _LARGE},
    "clip_lt": clip.RECIPES,
}
