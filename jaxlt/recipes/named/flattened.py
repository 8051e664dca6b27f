"""Recipes of CC-SAM's figure 2: flattening operations on four baselines, CIFAR-100-LT.

The operations' strengths are not in the paper's body (its appendix C has them); these are the usual
ones of the operations' own papers.
"""

from typing import Any

from jaxlt.recipes.methods import SAM, GradientNormPenalty, RandomPerturbation
from jaxlt.recipes.named.cifar import RECIPES as ONE_STAGE
from jaxlt.recipes.named.cifar_stages import RECIPES as IN_STAGES
from jaxlt.recipes.network import CosineLayer
from jaxlt.recipes.recipe import Recipe

BASELINES = ("crt", "ldam_drw", "mislas", "gcl")
# Spectral normalization, gradient-norm penalty, model perturbation along noise and along the
# gradient. Weight averaging has epochs of its own in each stage.
OPERATIONS: dict[str, dict[str, Any]] = {
    "swa": {},
    "sn": {"spectral_norm": "all"},
    "gp": {"method": GradientNormPenalty(penalty=0.01, rho=0.05)},
    "mp_random": {"method": RandomPerturbation(rho=0.05)},
    "mp_adversarial": {"method": SAM(rho=0.05)},
}
_SOURCE = "CC-SAM (CVPR 2023), figure 2, which gives no numbers; strengths are the operations' own"


def flattened(recipe: Recipe, operation: str, stages: tuple[int, ...]) -> Recipe:
    """Returns the recipe with a flattening operation in the given stages, counted from 1."""
    changed: list[Any] = list(recipe.stages)
    for number in stages:
        stage, fields = changed[number - 1], dict(OPERATIONS[operation])
        if operation == "swa":
            fields["swa_epoch"] = stage.epochs * 3 // 4
        if operation == "sn" and stage.trainable != "all":
            fields["spectral_norm"] = "classifier"
        changed[number - 1] = stage.replace(**fields)
    return recipe.replace(stages=tuple(changed))


def _variants(baseline: Recipe, operation: str) -> tuple[tuple[int, ...], ...]:
    # What a cosine classifier gives does not depend on its kernel's norm.
    cosine = isinstance(baseline.network.classifier, CosineLayer)
    if len(baseline.stages) == 1 or (operation == "sn" and cosine):
        return ((1,),)
    return ((1,), (2,), (1, 2))


_CIFAR = {**ONE_STAGE, **IN_STAGES}
RECIPES: dict[str, Recipe] = {
    f"{operation}_{'_'.join(map(str, stages))}_{baseline}_cifar100": flattened(
        _CIFAR[f"{baseline}_cifar100"], operation, stages
    )
    for baseline in BASELINES
    for operation in OPERATIONS
    for stages in _variants(_CIFAR[f"{baseline}_cifar100"], operation)
}
SOURCES = dict.fromkeys(RECIPES, _SOURCE)
