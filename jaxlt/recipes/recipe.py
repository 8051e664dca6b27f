"""A recipe: every number that a run depends on, as a tree of typed parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from jaxlt.errors import UsageError
from jaxlt.files.json_files import read_json
from jaxlt.recipes.data import Data
from jaxlt.recipes.network import AnyNetwork, Encoder, Network, Small
from jaxlt.recipes.part import Count, CountOrZero, Part, check
from jaxlt.recipes.stage import AnyStage, NearestClassMean, Stage, TauNorm

FORMAT = 2
"""Of `recipe.json`; the formats before were flat."""


class Evaluation(Part, frozen=True):
    """When a run is evaluated, on what, and which classes count as rare."""

    epochs: Count = 10
    """An evaluation and a checkpoint every so many epochs, and after the last."""
    images: Literal["test", "val"] = "test"
    """Images that are evaluated: the test set, or the validation set of a source that has one."""
    test_time_augmentation: CountOrZero | None = None
    """Pixels by which evaluated images exceed image_size, for the mean over five crops. LIFT has
    24, or 21 for patches of 14; the crops are corners and centre. none for one look."""
    many_above: CountOrZero = 100
    """Classes with more training images are many-shot."""
    few_below: CountOrZero = 20
    """Classes with fewer are few-shot; those between the two are medium-shot."""


class Recipe(Part, frozen=True):
    """Data, network, stages and evaluation of a run.

    >>> from jaxlt import recipes
    >>> recipe = recipes.Recipe(stages=(recipes.Stage(method=recipes.FocalSAM(rho=0.3)),))
    >>> recipe.first.method.rho
    0.3
    """

    data: Data = Data()
    """What is trained on."""
    network: AnyNetwork = Small()
    """What is trained."""
    stages: tuple[AnyStage, ...] = (Stage(),)
    """Stages, each from the state that the one before ended in."""
    evaluation: Evaluation = Evaluation()
    """When and on what the run is evaluated."""

    def __post_init__(self):
        super().__post_init__()
        steps = self.stages and isinstance(self.stages[0], Stage)
        check("stages", self.stages, bool(steps), "a stage that trains, and further ones")
        for stage in self.stages[:-1]:
            last = not isinstance(stage, NearestClassMean)
            check("then", "ncm", last, "train or tau_norm before the last stage")
        check("learn_scale", self.first.learn_scale, not self.first.learn_scale, "false at first")
        test, held = self.evaluation.images == "test", self.data.validation_per_class
        need = "0 unless evaluation.images is test"
        check("data.validation_per_class", held, test or not held, need)
        self._check_heads()
        self._check_encoder()

    def _check_heads(self) -> None:
        scale = self.network.cosine_scale
        for before, stage in zip((None, *self.heads), self.stages, strict=False):
            if isinstance(stage, Stage) and stage.loss.logit_scale != 1:
                check("network.classifier.scale", scale, scale == 1, "1 with a loss with a scale")
            if before is None:
                continue
            scaled = isinstance(stage, Stage) and stage.learn_scale
            for needs, heads, what in (
                (isinstance(stage, TauNorm), ("linear",), "for tau_norm"),
                (scaled, ("linear", "scaled_linear"), "where a scale is learned"),
                (
                    isinstance(stage, Stage) and stage.adversary is not None,
                    ("linear", "cosine"),
                    "with an adversary",
                ),
            ):
                need = f"{' or '.join(heads)} {what}"
                check("network.classifier", before, not needs or before in heads, need)

    def _check_encoder(self) -> None:
        if not isinstance(self.network, Encoder):
            return
        self.network.adapted()
        partly = self.network.adaptation.kinds != ("full",)
        for stage in self.stages:
            if isinstance(stage, Stage):
                norm, trainable = stage.spectral_norm, stage.trainable
                need = "none or classifier with an adaptation"
                check("spectral_norm", norm, not partly or norm != "all", need)
        check(
            "trainable",
            trainable := self.first.trainable,
            trainable == "all",
            "all, see network.adaptation",
        )

    @property
    def first(self) -> Stage:
        """The first stage."""
        stage = self.stages[0]
        assert isinstance(stage, Stage)
        return stage

    def with_first(self, **changes: Any) -> Self:
        """Returns the recipe with fields of its first stage changed."""
        return self.replace(stages=(self.first.replace(**changes), *self.stages[1:]))

    @property
    def heads(self) -> tuple[str, ...]:
        """The kind of classifier that the network has in each stage."""
        kinds, head = [], str(type(self.network.classifier).__struct_config__.tag)
        for stage in self.stages:
            if isinstance(stage, Stage) and stage.learn_scale:
                head = "scaled_linear"
            if isinstance(stage, NearestClassMean):
                head = "nearest_class_mean"
            kinds.append(head)
        return tuple(kinds)

    def shortened(self, epochs: int) -> Self:
        """Returns the recipe with a first stage of so many epochs and all else in proportion."""
        factor = epochs / self.first.epochs
        stages = (one.scaled(factor) if isinstance(one, Stage) else one for one in self.stages)
        return self.replace(stages=tuple(stages))

    def identity(self) -> dict[str, Any]:
        """Returns what a run of the recipe is known by, as JSON values.

        The tree, and the contents of the files that the network begins with.

        Raises:
            UsageError: such a file cannot be read.
        """
        contents = self.network.contents()
        return {"format": FORMAT, "recipe": msgspec.to_builtins(self), "contents": contents}


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe from a file, such as the `recipe.json` of a run.

    Raises:
        UsageError: the file is damaged, of an earlier version, or holds no recipe.
    """
    return recipe_of(read_json(path), path)


def recipe_of(identity: Mapping[str, Any], path: Path) -> Recipe:
    """Returns the recipe in the contents of a `recipe.json`.

    Args:
        identity: the contents.
        path: of the file, for messages.

    Raises:
        UsageError: as `read_recipe`.
    """
    if not {"format", "dataset"} & identity.keys():
        raise UsageError(
            f"{path} must be a recipe, such as the recipe.json of a run, got another file"
        )
    found = identity.get("format", 0)
    if found != FORMAT:
        raise UsageError(
            f"{path} must have format {FORMAT}, got {found!r:.20}: another version of jaxlt wrote "
            "it; read it with that version, or train again with this one"
        )
    try:
        return msgspec.convert(identity.get("recipe"), Recipe)
    # Of msgspec, and of a name that is no UTF-8.
    except ValueError as error:
        raise UsageError(f"{path} must hold a recipe: {error}") from error


def write_recipe(recipe: Recipe) -> str:
    """Returns a recipe as the JSON text that `read_recipe` reads."""
    values = {"format": FORMAT, "recipe": msgspec.to_builtins(recipe), "contents": {}}
    return json.dumps(values, indent=2) + "\n"


__all__ = ["FORMAT", "Evaluation", "Network", "Recipe", "read_recipe", "recipe_of", "write_recipe"]
