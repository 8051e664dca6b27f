"""The flags of the programs that train named recipes, beside the recipe's own."""

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.cluster import ONE_PROCESS, Cluster
from experiments.number_ranges import Numbers
from jaxlt.recipes.recipe import DEFAULT_EXECUTION, Execution, Recipe


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    recipe: str
    """Named recipe, see --list, a run or its recipe.json; the other flags override it."""
    list: Annotated[str, " ".join] | None = None
    """Print the named recipes, or those whose names hold a word, and train nothing."""
    workdir: Path | None = None
    """Directory of the run; none for runs/BENCHMARK/RECIPE-seedN. With several seeds or with rhos,
    the directory of the runs' directories, seedN or rhoX-seedN; none for runs/BENCHMARK/RECIPE."""
    seeds: Numbers = (0,)
    """Seeds of weights, order and augmentation, one run each; ranges such as 0-7 too."""
    rhos: tuple[float, ...] = ()
    """Radii in place of method.rho, one run each with every seed."""
    check_images: bool = False
    """Decode all images once before training, and report together those that cannot be."""
    resume: bool = True
    """Go on where the workdir's runs of this recipe stopped; --no-resume wants a new workdir."""
    options: Recipe = Recipe()  # noqa: RUF009 (it is frozen)
    execution: Execution = DEFAULT_EXECUTION
    cluster: Cluster = ONE_PROCESS
