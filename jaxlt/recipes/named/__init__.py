"""Named recipes, each with its source and, where there is one, its published result.

`named` makes the recipes of the module that has the name, and no others. `RECIPES` and `SOURCES`
have all of them, `PUBLISHED` the results, `BENCHMARKS` what each program offers.
"""

import difflib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxlt.errors import UsageError
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.sources import TFDS
from jaxlt.recipes.stage import Stage

if TYPE_CHECKING:
    from jaxlt.recipes.named.published import PUBLISHED as PUBLISHED
    from jaxlt.recipes.named.published import Published as Published

    RECIPES: dict[str, Recipe]
    SOURCES: dict[str, str]
    BENCHMARKS: dict[str, dict[str, Recipe]]

_Varied = TypeVar("_Varied", Recipe, Stage)

CIFAR_FACTORS = (200, 100, 50, 10)
"""Imbalance factors of CIFAR-10/100-LT."""

_LARGE = ("imagenet_lt", "places_lt", "inaturalist")
_SMALL = ("cifar", "cifar_stages", "standin", "flattened")
_MODULES = (*_SMALL, "large_scale", "clip")
_MODULES_OF_BENCHMARKS: dict[str, Sequence[str]] = {
    "cifar_lt": _SMALL,
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

    >>> from jaxlt.recipes import named
    >>> named("sam_digits").first.method.rho
    0.01
    """
    for module in _MODULES if benchmark is None else _MODULES_OF_BENCHMARKS[benchmark]:
        recipes = _module(module).RECIPES
        if name in recipes and _is_of(name, benchmark):
            return recipes[name]
    known = _all("RECIPES") if benchmark is None else of_benchmark(benchmark)
    near = " or ".join(difflib.get_close_matches(name, known))
    hint = f", such as {near}" if near else ""
    raise UsageError(f"recipe must be a named one{hint}, got {name}")


def of_benchmark(benchmark: str) -> dict[str, Recipe]:
    """Returns the recipes of a program, by name."""
    recipes = _all("RECIPES", _MODULES_OF_BENCHMARKS[benchmark])
    return {name: recipe for name, recipe in recipes.items() if _is_of(name, benchmark)}


def _is_of(name: str, benchmark: str | None) -> bool:
    return benchmark not in _LARGE or name.endswith(benchmark)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _all(table: str, modules: Sequence[str] = _MODULES) -> dict[str, Any]:
    return {n: one for module in modules for n, one in getattr(_module(module), table).items()}


def __getattr__(name: str) -> Any:
    if name in ("RECIPES", "SOURCES"):
        return _all(name)
    if name == "BENCHMARKS":
        return {benchmark: of_benchmark(benchmark) for benchmark in _MODULES_OF_BENCHMARKS}
    if name in ("PUBLISHED", "Published"):
        return getattr(_module("published"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def vary(base: _Varied, **fields: Any) -> _Varied:
    """Returns a recipe, or a stage, with some fields changed.

    Args:
        base: what is changed.
        **fields: of the recipe, of its data, of its first stage, or of that stage's optimizer and
            augmentation, by their own names.
    """
    changes = {name: fields.pop(name) for name in base.__struct_fields__ if name in fields}
    for name in ("data", "optimizer", "augmentation"):
        part: Any = changes.get(name, getattr(base, name, None))
        known = getattr(part, "__struct_fields__", ())
        if inner := {field: fields.pop(field) for field in known if field in fields}:
            changes[name] = part.replace(**inner)
    if isinstance(base, Recipe) and fields:
        first, *later = changes.get("stages", base.stages)
        changes["stages"] = (vary(first, **fields), *later)
        fields = {}
    return base.replace(**changes, **fields)


def followed_by(base: Recipe, *stages: Any) -> Recipe:
    """Puts stages after a recipe's first.

    Args:
        base: the recipe.
        *stages: in place of those after its first.
    """
    return base.replace(stages=(base.first, *stages))


def add_on_cifar(
    recipes: dict[str, Recipe],
    sources: dict[str, str],
    name: str,
    recipe: Recipe,
    source: str,
    cifar: tuple[int, ...] = (10, 100),
    factors: tuple[int, ...] = CIFAR_FACTORS,
    **by_classes: dict[int, Any],
) -> None:
    """Adds a recipe, and its source, for each number of classes and each imbalance factor.

    Fields `by_classes` have one value for CIFAR-10 and one for CIFAR-100.
    """
    for classes in cifar:
        own = {field: values[classes] for field, values in by_classes.items()}
        dataset = TFDS(dataset=f"cifar{classes}")
        for factor in factors:
            full = f"{name}_cifar{classes}" + ("" if factor == 100 else f"_if{factor}")
            profile = recipe.data.profile.replace(imbalance_factor=factor)
            recipes[full] = vary(recipe, source=dataset, profile=profile, **own)
            sources[full] = source
