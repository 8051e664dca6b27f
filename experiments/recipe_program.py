"""The program that trains named recipes, on whichever data: flags, list, runs."""

import dataclasses
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from experiments import command_line
from experiments.cluster import ONE_PROCESS
from experiments.recipe_arguments import Arguments
from jaxlt import UsageError
from jaxlt.recipes.methods import has_radius
from jaxlt.recipes.named import named
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.recorded import read_recipe
from jaxlt.runs.reader import directory_and_step


def train_recipe(benchmark: str, default: str, description: str) -> None:
    """Parses the flags, then lists recipes, or trains and logs each run's last evaluation.

    `benchmark` is a key of `BENCHMARKS` and the name of the program; `default` is the recipe where
    the flags name none.
    """
    arguments = _arguments(benchmark, default, description)
    if arguments.list is not None:
        from experiments.recipe_list import format_list

        print(format_list(benchmark, arguments.list))
        return
    paths = _paths(benchmark, arguments)
    for path in paths.values():
        if not arguments.resume and path.exists():
            raise UsageError(f"workdir must be new with --no-resume, got {path}, which exists")
    if arguments.cluster == ONE_PROCESS:
        _train(arguments, paths)
        return
    alike = {**dataclasses.asdict(arguments.execution), "check_images": arguments.check_images}
    with arguments.cluster.joined({**alike, "runs": [str(path) for path in paths.values()]}):
        _train(arguments, paths)


def _train(arguments: Arguments, paths: dict[tuple[int, float | None], Path]) -> None:
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members

    enable_compilation_cache()
    built = BuiltRecipe(arguments.options, arguments.execution, check_images=arguments.check_images)
    members = [Member(seed, path, rho) for (seed, rho), path in paths.items()]
    results = train_members(built, members, label=label(arguments.recipe))
    for path, result in zip(paths.values(), results, strict=True):
        _report(path, result)
    places = [shlex.quote(str(path)) for path in paths.values()]
    command_line.say_next(
        f"python3 -m experiments.report {' '.join(places)}",
        f"python3 -m experiments.predict {places[0]} IMAGE...",
    )


def label(recipe: str) -> str:
    """Returns what a recipe of the flag `--recipe` is called: by its name, file or run."""
    path = Path(recipe)
    # All runs' files have one name.
    path = path.parent if path.name == "recipe.json" else path
    return path.stem if path.suffix == ".json" else path.resolve().name


def _paths(benchmark: str, arguments: Arguments) -> dict[tuple[int, float | None], Path]:
    """Returns the directory of each seed and radius, the radius being None for the recipe's."""
    command_line.check_distinct("seed", arguments.seeds)
    radii: tuple[float | None, ...] = arguments.rhos or (None,)
    command_line.check_distinct("rho", radii)
    method = arguments.options.first.method
    if arguments.rhos and not has_radius(method):
        shown = " ".join(map(str, arguments.rhos))
        raise UsageError(f"rhos must be none for {method.label}, which has no rho, got {shown}")
    recipe = label(arguments.recipe)
    runs = Path("runs") / benchmark
    if len(arguments.seeds) == 1 and not arguments.rhos:
        (seed,) = arguments.seeds
        return {(seed, None): arguments.workdir or runs / f"{recipe}-seed{seed}"}
    directory = arguments.workdir or runs / recipe
    return {
        (seed, rho): directory / (("" if rho is None else f"rho{rho}-") + f"seed{seed}")
        for rho in radii
        for seed in arguments.seeds
    }


def _report(path: Path, result: dict[str, Any]) -> None:
    groups = ("many", "medium", "few")
    shown = ", ".join(f"{g} {100 * result[g]:.2f}" for g in groups if result[g] is not None)
    logging.getLogger(__name__).info(
        "accuracy %.2f %% (%s, ECE %.2f) after %d steps in %.1f s, %s",
        100 * result["accuracy"],
        shown,
        100 * result["ece"],
        result["step"],
        result["seconds"],
        path,
    )


def _arguments(benchmark: str, default: str, description: str) -> Arguments:
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    name = command_line.word_of("recipe", sys.argv[1:], default)
    arguments = Arguments(name, options=chosen_recipe(name, benchmark))
    return command_line.parse(Arguments, f"experiments.{benchmark}", description, default=arguments)


def chosen_recipe(name: str, benchmark: str | None = None) -> Recipe:
    """Returns the recipe that `--recipe` names, or reads it from a file or a run's directory."""
    path = Path(name)
    if path.suffix == ".json" and path.exists():
        return read_recipe(path)
    try:
        return named(name, benchmark)
    except UsageError:
        run, _ = directory_and_step(path)
        if not (run / "recipe.json").exists():
            raise
    return read_recipe(run / "recipe.json")
