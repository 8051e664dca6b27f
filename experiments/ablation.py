"""CC-SAM's table 2 on any dataset: direction and magnitude, alone and together, and stage two.

Each first stage is followed by cRT (a new classifier, trained on class-balanced batches) and by the
same with features moved against the classifier, which is what CC-SAM's second stage adds.
`python -m experiments.ablation`.
"""

import dataclasses
import sys
from pathlib import Path

from experiments import command_line
from experiments.table.plan import Cell, Plan
from experiments.table.program import Options, make_table
from jaxlt import UsageError
from jaxlt.recipes.images import Augmentation, ClassAware
from jaxlt.recipes.losses import Adversary, PaperAdversary
from jaxlt.recipes.methods import CCSAM, SGD
from jaxlt.recipes.named import Published, named
from jaxlt.recipes.named.vary import followed_by, vary
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.part import check, part_name
from jaxlt.recipes.recipe import Recipe, read_recipe
from jaxlt.recipes.stage import Stage

_REFERENCE = "CC-SAM (CVPR 2023), table 2: Places-LT, ResNet-152"
_FIRST_STAGES = {
    "sgd": "cRT",
    "direction": "cRT + direction",
    "magnitude": "cRT + magnitude",
    "both": "cRT + both",
}
_SECOND_STAGES = {"crt": "", "adversary": " + stage 2"}
_PUBLISHED = {
    "sgd_crt": 37.8,
    "direction_crt": 38.9,
    "magnitude_crt": 37.5,
    "both_crt": 40.1,
    "both_adversary": 40.6,
}
# At 1, max_relative_radius would bound every class and leave no magnitude to compare.
_CC_SAM = CCSAM(radius_scale=0.01)
_ADVERSARY = PaperAdversary()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    recipe: str = "sgd_digits"
    """Named recipe of one stage of SGD, or a file such as the recipe.json of a run; the other flags
    override its values. Its method becomes cc_sam, whose parts the rows leave out."""
    workdir: Path | None = None
    """Directory of the runs and the table; None for runs/ablation_RECIPE."""
    constant_radius: float = 0.01
    """Norm of each class's perturbation where the direction alone is CC-SAM's. Where the magnitude
    is CC-SAM's it is the characteristic radius times method.radius_scale, here 0.01 unless it is
    given."""
    second_epochs: int | None = None
    """Epochs of the second stage; None for a sixth of the first's."""
    adversary_radius: float = _ADVERSARY.radius
    """How far CC-SAM's second stage moves a feature."""
    adversary_limit: float = _ADVERSARY.limit
    """Largest share of the moved features' loss."""
    base: Recipe = Recipe()  # noqa: RUF009 (it is frozen)
    options: Options = Options((0, 1, 2))  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, trains what is missing, and prints and saves the table."""
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    name = command_line.word_of("recipe", sys.argv[1:]) or Arguments.recipe
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.ablation",
        "Trains with the direction and the magnitude of CC-SAM's perturbation, each alone and "
        "both, with plain and with adversarial re-training of the classifier after it.",
        default=Arguments(name, base=_with_cc_sam(name)),
    )
    plan = plan_ablation(
        arguments.base,
        arguments.constant_radius,
        arguments.second_epochs,
        PaperAdversary(radius=arguments.adversary_radius, limit=arguments.adversary_limit),
    )
    workdir = arguments.workdir or Path(f"runs/ablation_{Path(name).stem}")
    make_table(plan, workdir, arguments.options)


def _with_cc_sam(name: str) -> Recipe:
    recipe = read_recipe(Path(name)) if Path(name).suffix == ".json" else named(name)
    method, stages = part_name(recipe.first.method), len(recipe.stages)
    check("recipe", f"{name} of {method}", method == "sgd", "one of sgd")
    check("recipe", f"{name} of {stages}", stages == 1, "one of a single stage")
    return vary(recipe, method=_CC_SAM)


def plan_ablation(
    base: Recipe,
    constant_radius: float,
    second_epochs: int | None = None,
    adversary: Adversary = _ADVERSARY,
) -> Plan:
    """Lays out the table.

    Args:
        base: one stage of CC-SAM, both of direction and magnitude.
        constant_radius: norm of the perturbation where its magnitude is not CC-SAM's.
        second_epochs: of the second stages, None for a sixth of the first's.
        adversary: of the second stages that have one.

    Raises:
        UsageError: the base is something else, or a number is out of range.
    """
    if not 0 <= constant_radius < float("inf"):
        raise UsageError(f"constant_radius must be finite and at least 0, got {constant_radius}")
    firsts = _first_stages(base, constant_radius)
    epochs = max(1, base.first.epochs // 6) if second_epochs is None else second_epochs
    data = base.data.name
    cells: list[Cell] = []
    for second, suffix in _SECOND_STAGES.items():
        stage = _second_stage(base.first, epochs, adversary if second == "adversary" else None)
        for first, label in _FIRST_STAGES.items():
            name = f"{first}_{second}"
            recipe = followed_by(firsts[first], stage)
            published = Published(_REFERENCE, _PUBLISHED[name]) if name in _PUBLISHED else None
            cells.append(Cell(label + suffix, data, name, recipe, published=published))
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
    return {
        "sgd": vary(base, method=SGD()),
        "direction": vary(
            base, method=both.replace(magnitude="constant", radius_scale=constant_radius)
        ),
        "magnitude": vary(base, method=both.replace(direction="random")),
        "both": base,
    }


def _second_stage(first: Stage, epochs: int, adversary: Adversary | None) -> Stage:
    return Stage(
        trainable="classifier",
        reset_classifier=True,
        sampler=ClassAware(),
        adversary=adversary,
        augmentation=Augmentation(shift=first.augmentation.shift),
        epochs=epochs,
        batch_size=first.batch_size,
        optimizer=Optimizer(lr=first.optimizer.lr, weight_decay=first.optimizer.weight_decay),
    )


if __name__ == "__main__":
    command_line.run(main)
