"""The program that trains named recipes, on whichever data: flags, list, runs."""

import dataclasses
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tabulate import tabulate

from experiments import command_line
from experiments.cluster import ONE_PROCESS, Cluster
from experiments.command_line import check_distinct
from experiments.execution import DEFAULT_EXECUTION, Execution
from experiments.presentation import MEASURES
from experiments.recipe import Recipe
from experiments.recipes import BENCHMARKS, PUBLISHED, SOURCES
from jaxlt import UsageError

_METHODS_WITH_RHO = (
    *("sam", "imb_sam", "focal_sam"),
    *("gradient_norm_penalty", "random_perturbation"),
)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The named recipe whose values the other flags start from."""

    recipe: str
    """Named recipe, see --list; every other flag overrides one of its values."""
    list: bool = False
    """Print the named recipes and train nothing."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    chosen: tyro.conf.OmitArgPrefixes[Chosen]
    options: Annotated[Recipe, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Directory of the run; None for runs/BENCHMARK/RECIPE-seedN. With several seeds or with rhos,
    the directory of the runs' directories, seedN or rhoX-seedN; None for runs/BENCHMARK/RECIPE."""
    seeds: Annotated[command_line.Numbers, tyro.conf.arg(aliases=["--seed"])] = (0,)
    """Seeds of parameters, data order and augmentation, one run each. Ranges such as 0-7 are
    understood."""
    rhos: tuple[float, ...] = ()
    """Radii in place of rho, one run each with every seed; none for rho's."""
    execution: tyro.conf.OmitArgPrefixes[Execution] = DEFAULT_EXECUTION
    cluster: tyro.conf.OmitArgPrefixes[Cluster] = ONE_PROCESS
    check_images: bool = False
    """Decode all training and evaluated images once, in parallel, before training: what cannot be
    decoded is then reported together. It takes as long as an epoch's decoding."""
    resume: bool = True
    """Go on where the workdir's runs of the same recipe stopped."""


def train_recipe(benchmark: str, default: str, description: str) -> None:
    """Parses the flags, then lists recipes, or trains and logs each run's last evaluation.

    Args:
        benchmark: a key of `BENCHMARKS`, also the program's and its directory's name.
        default: the recipe that is taken where the flags name none.
        description: of the program, for `--help`.

    Raises:
        UsageError: a flag is wrong.
    """
    arguments = _arguments(benchmark, default, description)
    if arguments.chosen.list:
        print(format_list(benchmark))
        return
    paths = _paths(benchmark, arguments)
    for path in paths.values():
        if not arguments.resume and path.exists():
            raise UsageError(f"workdir must be new with --no-resume, {path} exists")
    with arguments.cluster.joined():
        _train(arguments, paths)


def _train(arguments: Arguments, paths: dict[tuple[int, float | None], Path]) -> None:
    same = {**dataclasses.asdict(arguments.execution), "check_images": arguments.check_images}
    arguments.cluster.check_same({**same, "runs": [str(path) for path in paths.values()]})
    from experiments.experiment import Experiment, Replica
    from experiments.runs import run_all
    from jaxlt.devices.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    experiment = Experiment(
        arguments.options, arguments.execution, check_images=arguments.check_images
    )
    results = run_all(
        experiment,
        [Replica(seed, path, rho) for (seed, rho), path in paths.items()],
        label=arguments.chosen.recipe,
        mode=arguments.execution.replicas,
        keep_checkpoints=arguments.execution.keep_checkpoints,
    )
    for path, result in zip(paths.values(), results, strict=True):
        _report(path, result)


def format_list(benchmark: str) -> str:
    """Renders a benchmark's recipes: what they follow, and the published accuracy in percent."""
    headers = ["recipe", "after", *MEASURES.values(), "published in"]
    rows = [[name, SOURCES[name], *_published(name)] for name in BENCHMARKS[benchmark]]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".2f")


def _published(name: str) -> Sequence[object]:
    published = PUBLISHED.get(name)
    if published is None:
        return ()
    return [*(getattr(published, measure) for measure in MEASURES), published.source]


def _paths(benchmark: str, arguments: Arguments) -> dict[tuple[int, float | None], Path]:
    """Returns the directory of each seed and radius, the radius being None for the recipe's."""
    check_distinct("seed", arguments.seeds)
    radii: tuple[float | None, ...] = arguments.rhos or (None,)
    check_distinct("rho", radii)
    if arguments.rhos and arguments.options.method not in _METHODS_WITH_RHO:
        raise UsageError(
            f"rhos are for the methods {', '.join(_METHODS_WITH_RHO)}, method is "
            f"{arguments.options.method}"
        )
    runs, recipe = Path("runs") / benchmark, arguments.chosen.recipe
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
    # A run that an earlier version finished has none.
    if "ece" in result:
        shown += f", ECE {100 * result['ece']:.2f}"
    logging.getLogger(__name__).info(
        "accuracy %.2f %% (%s) after %d steps in %.1f s, %s",
        100 * result["accuracy"],
        shown,
        result["step"],
        result["seconds"],
        path,
    )


def _arguments(benchmark: str, default: str, description: str) -> Arguments:
    about, recipes = (f"experiments.{benchmark}", description), BENCHMARKS[benchmark]
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    chosen, _ = command_line.parse(
        Chosen, *about, default=Chosen(default), return_unknown_args=True, add_help=False
    )
    if chosen.recipe not in recipes:
        similar = difflib.get_close_matches(chosen.recipe, recipes)
        hint = f", such as {' or '.join(similar)}" if similar else ""
        raise UsageError(f"--recipe must be one that --list prints{hint}, got {chosen.recipe}")
    defaults = Arguments(chosen=chosen, options=recipes[chosen.recipe])
    return command_line.parse(Arguments, *about, default=defaults)
