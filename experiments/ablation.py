"""CC-SAM's table 2 on any dataset: direction and magnitude, alone and together, and stage two.

CC-SAM's second stage is cRT with features moved against the classifier;
`python -m experiments.ablation`.
"""

import dataclasses
import sys
from pathlib import Path

from experiments import command_line
from experiments.recipe_program import chosen_recipe, label
from experiments.table.plan import Cell, Plan
from experiments.table.program import Options, make_table
from jaxlt.recipes.data import Augmentation, ClassAware
from jaxlt.recipes.losses import Adversary, PaperAdversary
from jaxlt.recipes.methods import CCSAM, SGD
from jaxlt.recipes.named import Published, followed_by, vary
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.part import check, part_name
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import Stage

_REFERENCE = "CC-SAM (CVPR 2023), table 2: Places-LT, ResNet-152"
# The label of each row, its stages, the published accuracy.
_ROWS = (
    ("cRT", "sgd", "crt", 37.8),
    ("cRT + direction", "direction", "crt", 38.9),
    ("cRT + magnitude", "magnitude", "crt", 37.5),
    ("cRT + both", "both", "crt", 40.1),
    ("cRT + stage 2", "sgd", "adversary", None),
    ("cRT + direction + stage 2", "direction", "adversary", None),
    ("cRT + magnitude + stage 2", "magnitude", "adversary", None),
    ("cRT + both + stage 2", "both", "adversary", 40.6),
)
# At 1, max_relative_radius would bound every class and leave no magnitude to compare.
_CC_SAM = CCSAM(radius_scale=0.01)
_ADVERSARY = PaperAdversary()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    recipe: str = "sgd_digits"
    """Named recipe of one stage of SGD, a run or its recipe.json; the other flags override it. Its
    method becomes cc_sam, whose parts the rows leave out."""
    workdir: Path | None = None
    """Directory of the runs and the table; none for runs/ablation_RECIPE."""
    constant_radius: float = 0.01
    """Norm of each class's perturbation where the direction alone is CC-SAM's. Where the magnitude
    is CC-SAM's it is the characteristic radius times method.radius_scale, here 0.01 unless it is
    given."""
    second_epochs: int | None = None
    """Epochs of the second stage; none for a sixth of the first's."""
    adversary_radius: float = _ADVERSARY.radius
    """How far CC-SAM's second stage moves a feature."""
    adversary_limit: float = _ADVERSARY.limit
    """Largest share of the moved features' loss."""
    base: Recipe = Recipe()  # noqa: RUF009 (it is frozen)
    options: Options = Options((0, 1, 2))  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, trains what is missing, and prints and saves the table."""
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    name = command_line.word_of("recipe", sys.argv[1:], Arguments.recipe)
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.ablation",
        "Trains with the direction and the magnitude of CC-SAM's perturbation, each alone and "
        "both, with plain and with adversarial re-training of the classifier after it.",
        default=Arguments(name, base=_with_cc_sam(name)),
    )
    adversary = PaperAdversary(radius=arguments.adversary_radius, limit=arguments.adversary_limit)
    base, radius = arguments.base, arguments.constant_radius
    plan = plan_ablation(base, radius, arguments.second_epochs, adversary)
    workdir = arguments.workdir or Path(f"runs/ablation_{label(name)}")
    make_table(plan, workdir, arguments.options)


def _with_cc_sam(name: str) -> Recipe:
    recipe = chosen_recipe(name)
    method, stages = part_name(recipe.first.method), len(recipe.stages)
    check("recipe", f"{name} of {method}", method == "sgd", "one with method sgd")
    check("recipe", f"{name} of {stages}", stages == 1, "one of a single stage")
    return vary(recipe, method=_CC_SAM)


def plan_ablation(
    base: Recipe,
    constant_radius: float,
    second_epochs: int | None = None,
    adversary: Adversary = _ADVERSARY,
) -> Plan:
    """Lays out the table of a base of one stage of CC-SAM; see `Arguments` for the others."""
    holds = 0 <= constant_radius < float("inf")
    check("constant_radius", constant_radius, holds, "finite and at least 0")
    firsts, data = _first_stages(base, constant_radius), base.data.name
    crt = _crt(base.first, second_epochs)
    seconds = {"crt": crt, "adversary": crt.replace(adversary=adversary)}
    cells = []
    for row, first, second, accuracy in _ROWS:
        recipe = followed_by(firsts[first], seconds[second])
        published = Published(_REFERENCE, accuracy) if accuracy else None
        cells.append(Cell(row, data, f"{first}_{second}", recipe, published=published))
    alone = dataclasses.replace(cells[0], row="SGD, no second stage", stage=0, published=None)
    factor = getattr(base.data.profile, "imbalance_factor", 1.0)
    title = f"CC-SAM's ablation on {data}, imbalance factor {factor:g}, {base.network.label}"
    note = f"The published numbers are of {_REFERENCE}."
    return Plan(title, (alone, *cells), by_group=True, notes=(note,), comparable=False)


def _first_stages(base: Recipe, constant_radius: float) -> dict[str, Recipe]:
    """Returns the rows' first stages; what they differ in, no flag may change."""
    both = base.first.method
    check("then", f"{len(base.stages) - 1} stages", len(base.stages) == 1, "the table's to choose")
    if not isinstance(both, CCSAM):
        check("method", both, False, "cc_sam, of which the table's rows leave parts out")
    for name in ("direction", "magnitude", "scope"):
        found, need = getattr(both, name), getattr(_CC_SAM, name)
        check(f"method.{name}", found, found == need, f"{need}, the table chooses it")
    constant = both.replace(magnitude="constant", radius_scale=constant_radius)
    return {
        "sgd": vary(base, method=SGD()),
        "direction": vary(base, method=constant),
        "magnitude": vary(base, method=both.replace(direction="random")),
        "both": base,
    }


def _crt(first: Stage, epochs: int | None) -> Stage:
    return Stage(
        trainable="classifier",
        reset_classifier=True,
        sampler=ClassAware(),
        augmentation=Augmentation(shift=first.augmentation.shift),
        epochs=max(1, first.epochs // 6) if epochs is None else epochs,
        batch_size=first.batch_size,
        optimizer=Optimizer(lr=first.optimizer.lr, weight_decay=first.optimizer.weight_decay),
    )


if __name__ == "__main__":
    command_line.run(main)
