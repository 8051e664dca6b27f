"""CC-SAM's table 2 on any dataset: direction and magnitude, alone and together, and stage two.

Each first stage is followed by cRT (a new classifier, trained on class-balanced batches) and by the
same with features moved against the classifier, which is what CC-SAM's second stage adds.
`python -m experiments.ablation`.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments import command_line
from experiments.recipe import Recipe
from experiments.recipes import RECIPES, Published
from experiments.stage import Stage
from experiments.table.plan import Cell, Plan
from experiments.table.program import Options, make_table
from jaxlt import UsageError

if TYPE_CHECKING:
    RecipeName = str
else:
    RecipeName = Literal[*RECIPES]

_REFERENCE = "CC-SAM (CVPR 2023), table 2: Places-LT, ResNet-152"
_FIRST_STAGES = {
    "sgd": "cRT",
    "direction": "cRT + direction",
    "magnitude": "cRT + magnitude",
    "both": "cRT + both",
}
_SECOND_STAGES: dict[str, tuple[Literal["none", "paper"], str]] = {
    "crt": ("none", ""),
    "adversary": ("paper", " + stage 2"),
}
_PUBLISHED = {
    "sgd_crt": 37.8,
    "direction_crt": 38.9,
    "magnitude_crt": 37.5,
    "both_crt": 40.1,
    "both_adversary": 40.6,
}
_RADIUS_SCALE = 0.01
# What the rows of the table differ in, or share, whatever the flags say.
_VARIED = ("method", "scope", "direction", "magnitude", "then")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The named recipe whose values the other flags start from."""

    recipe: RecipeName = "sgd_digits"
    """Named recipe of one stage of SGD; the other flags of a recipe override its values."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    chosen: tyro.conf.OmitArgPrefixes[Chosen]
    base: Annotated[Recipe, tyro.conf.arg(name="")]
    constant_radius: float = 0.01
    """Norm of each class's perturbation where the direction alone is CC-SAM's. Where the magnitude
    is CC-SAM's it is the characteristic radius times radius_scale, here 0.01 unless it is given:
    at 1, max_relative_radius would bound every class and leave no magnitude to compare."""
    second_epochs: int | None = None
    """Epochs of the second stage; None for a sixth of the first's."""
    workdir: Path | None = None
    """Directory of the runs and the table; None for runs/ablation_RECIPE."""
    options: tyro.conf.OmitArgPrefixes[Options] = Options((0, 1, 2))  # noqa: RUF009 (it is frozen)


def main() -> None:
    """Parses the flags, trains what is missing, and prints and saves the table."""
    description = (
        "Trains with the direction and the magnitude of CC-SAM's perturbation, each alone and "
        "both, with plain and with adversarial re-training of the classifier after it."
    )
    about = "experiments.ablation", description
    # The chosen recipe gives the defaults of all other flags, so it is read before them.
    chosen, _ = command_line.parse(Chosen, *about, return_unknown_args=True, add_help=False)
    base = dataclasses.replace(RECIPES[chosen.recipe], radius_scale=_RADIUS_SCALE)
    default = Arguments(chosen, base)
    arguments: Arguments = command_line.parse(Arguments, *about, default=default)
    plan = plan_ablation(arguments.base, arguments.constant_radius, arguments.second_epochs)
    workdir = arguments.workdir or Path(f"runs/ablation_{arguments.chosen.recipe}")
    make_table(plan, workdir, arguments.options)


def plan_ablation(base: Recipe, constant_radius: float, second_epochs: int | None = None) -> Plan:
    """Lays out the table.

    Args:
        base: one stage of SGD; its radius_scale, max_relative_radius and adversary_radius are
            those of CC-SAM.
        constant_radius: norm of the perturbation where its magnitude is not CC-SAM's.
        second_epochs: of the second stages, None for a sixth of the first's.

    Raises:
        UsageError: the base is more than a stage of SGD, or a number is out of range.
    """
    if not 0 <= constant_radius < float("inf"):
        raise UsageError(f"constant_radius must be finite and at least 0, got {constant_radius}")
    for name in _VARIED:
        found, need = getattr(base, name), getattr(Recipe(), name)
        if found != need:
            shown = f"{len(found)} later stages" if name == "then" else found
            raise UsageError(f"{name} is the table's own to choose, it must be {need}, got {shown}")
    firsts = _first_stages(base, constant_radius)
    epochs = max(1, base.epochs // 6) if second_epochs is None else second_epochs
    cells: list[Cell] = []
    for second, (adversary, suffix) in _SECOND_STAGES.items():
        stage = _second_stage(base, epochs, adversary)
        for first, label in _FIRST_STAGES.items():
            name = f"{first}_{second}"
            recipe = dataclasses.replace(firsts[first], then=(stage,))
            published = Published(_REFERENCE, _PUBLISHED[name]) if name in _PUBLISHED else None
            cells.append(Cell(label + suffix, base.dataset, name, recipe, published=published))
    alone = dataclasses.replace(cells[0], row="SGD, no second stage", stage=0, published=None)
    title = (
        f"CC-SAM's ablation on {base.dataset}, imbalance factor {base.imbalance_factor:g}, "
        f"{base.model}"
    )
    note = f"The published numbers are of {_REFERENCE}."
    return Plan(title, (alone, *cells), by_group=True, notes=(note,), comparable=False)


def _first_stages(base: Recipe, constant_radius: float) -> dict[str, Recipe]:
    both = dataclasses.replace(base, method="cc_sam", scope="classifier")
    return {
        "sgd": base,
        "direction": dataclasses.replace(both, magnitude="constant", radius_scale=constant_radius),
        "magnitude": dataclasses.replace(both, direction="random"),
        "both": both,
    }


def _second_stage(base: Recipe, epochs: int, adversary: Literal["none", "paper"]) -> Stage:
    return Stage(
        trainable="classifier",
        reset_classifier=True,
        sampler="class_aware",
        adversary=adversary,
        adversary_radius=base.adversary_radius,
        adversary_limit=base.adversary_limit,
        augmentation=base.augmentation,
        epochs=epochs,
        batch_size=base.batch_size,
        lr=base.lr,
        weight_decay=base.weight_decay,
    )


if __name__ == "__main__":
    command_line.run(main)
