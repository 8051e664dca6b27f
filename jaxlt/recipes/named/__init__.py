"""Named recipes, each with its source and, where there is one, its published result.

`named` makes the recipes of the module that has the name, and no others. `RECIPES` and `SOURCES`
have all of them, `PUBLISHED` the results, `BENCHMARKS` what each program offers.
"""

import difflib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxlt.errors import UsageError
from jaxlt.recipes.recipe import Recipe

if TYPE_CHECKING:
    from jaxlt.recipes.named.published import PUBLISHED as PUBLISHED
    from jaxlt.recipes.named.published import Published as Published

    RECIPES: dict[str, Recipe]
    SOURCES: dict[str, str]
    BENCHMARKS: dict[str, dict[str, Recipe]]

_LARGE = ("imagenet_lt", "places_lt", "inaturalist")
_MODULES = ("cifar", "standin", "flattened", "large_scale", "clip")
_MODULES_OF_BENCHMARKS: dict[str, Sequence[str]] = {
    "cifar_lt": ("cifar", "standin", "flattened"),
    **dict.fromkeys(_LARGE, ("large_scale",)),
    "clip_lt": ("clip",),
}


def named(name: str, benchmark: str | None = None) -> Recipe:
    """Returns a named recipe.

    Args:
        name: of the recipe.
        benchmark: program among whose recipes it must be, a key of `BENCHMARKS`; None for any.

    Raises:
        UsageError: there is none of this name; the message has the nearest.

    >>> named("sam_digits").first.method.rho
    0.01
    """
    for module in _MODULES if benchmark is None else _MODULES_OF_BENCHMARKS[benchmark]:
        recipes = _module(module).RECIPES
        if name in recipes and _is_of(name, benchmark):
            return recipes[name]
    known = _recipes() if benchmark is None else of_benchmark(benchmark)
    near = " or ".join(difflib.get_close_matches(name, known))
    hint = f", such as {near}" if near else ""
    raise UsageError(f"recipe must be a named one{hint}, got {name}")


def of_benchmark(benchmark: str) -> dict[str, Recipe]:
    """Returns the recipes of a program, by name."""
    return {
        name: recipe
        for module in _MODULES_OF_BENCHMARKS[benchmark]
        for name, recipe in _module(module).RECIPES.items()
        if _is_of(name, benchmark)
    }


def _is_of(name: str, benchmark: str | None) -> bool:
    return benchmark not in _LARGE or name.endswith(benchmark)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _recipes() -> dict[str, Recipe]:
    return {n: recipe for module in _MODULES for n, recipe in _module(module).RECIPES.items()}


def __getattr__(name: str) -> Any:
    if name == "RECIPES":
        return _recipes()
    if name == "SOURCES":
        return {n: one for module in _MODULES for n, one in _module(module).SOURCES.items()}
    if name == "BENCHMARKS":
        return {benchmark: of_benchmark(benchmark) for benchmark in _MODULES_OF_BENCHMARKS}
    if name in ("PUBLISHED", "Published"):
        return getattr(_module("published"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
