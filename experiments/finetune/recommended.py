"""The recipe that is recommended for a user's images, its trials and its baseline."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.finetune.choices import Choices, Limits, Needs, chosen, shot_limits
from experiments.finetune.facts import Facts
from experiments.tuning import Search
from jaxlt.data.sampling.validation import held_out_count
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded
from jaxlt.recipes.data import AnySource, Augmentation, Data, Native
from jaxlt.recipes.losses import CrossEntropy, LogitAdjusted
from jaxlt.recipes.methods import SGD, FocalSAM, has_radius
from jaxlt.recipes.named import vary
from jaxlt.recipes.network import Encoder, Network, Small
from jaxlt.recipes.network.network import Backbone
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.recorded import recorded_recipe
from jaxlt.recipes.stage import Stage
from jaxlt.runs.reader import RunReader, directory_and_step

METHOD = FocalSAM(rho=0.05, gamma=2.0, sharpness_weight=0.8)
CHOSEN = frozenset(
    {
        "epochs",
        "batch-size",
        "method.rho",
        "optimizer.lr",
        "network.precision",
        "data.validation",
        "data.image-size",
        "augmentation.shift",
        "evaluation.epochs",
        "evaluation.images",
        "evaluation.many-above",
        "evaluation.few-below",
    }
)
"""Flags of what `recommend` and short runs choose, beside the source."""
_OPTIMIZER = Optimizer(weight_decay=5e-4)
_RANDOM_CROPS_FROM = 64
_EVALUATIONS = 5
_SHORTER = 3
_FACTOR_OF_LR = 3.0


class BeginsWith(NamedTuple):
    """A network to begin with, and how its images must be.

    Attributes:
        network: part of the recipe.
        needs: None for random weights.
        normalization: of pixels, as of the recipe's data.
        reason: why it is this one.
        image_size: that of the run whose weights it has; None for what the images decide.
    """

    network: Network
    needs: Needs | None
    normalization: Any
    reason: str
    image_size: int | None = None


def backbone_of(place: str | None, run: str | None = None) -> BeginsWith:
    """Returns the network to begin with.

    Args:
        place: as of `--backbone`; None for a small one from random weights.
        run: as of `--init-from`, whose network it is; None for none.
    """
    if run is not None:
        if place is not None:
            raise UsageError(f"--backbone must be none with --init-from {run}, got {place}")
        return _of_run(run)
    if place is None:
        why = "small, from random weights: photos are usually told apart better with --backbone"
        return BeginsWith(Small(architecture="small_conv"), None, "dataset", why)
    from jaxlt.recipes import pretrained_backbone

    try:
        found = pretrained_backbone(place)
    except UsageError as error:
        if str(error).startswith("backbone "):
            raise
        raise UsageError(f"backbone must be one that can be read, got {place}: {error}") from error
    needs = Needs(found.image_size, found.multiple)
    adapted = isinstance(found.network, Encoder)
    why = f"{place}, pretrained" + "; small modules and the classifier are trained" * adapted
    return BeginsWith(found.network, needs, found.normalization, why)


def _of_run(run: str) -> BeginsWith:
    path, _ = directory_and_step(expanded(run))
    recorded = recorded_recipe(RunReader(path))
    size = recorded.data.image_size
    why = f"{recorded.network.label}, with the weights of run {run}"
    needs = None if size is None else Needs(size, 1)
    return BeginsWith(recorded.network, needs, recorded.data.normalization, why, size)


def check_weights(recipe: Recipe, facts: Facts) -> None:
    """Raises UsageError unless the files that a network begins with can be read, and fit."""
    network, side = recipe.network, recipe.data.image_size
    if side is None or recipe.init_from is not None:
        return
    shape = (side, side, facts.channels)
    if isinstance(network, Backbone) and network.weights is not None:
        from jaxlt.recipes.initial_weights import of_file

        of_file(network, network.weights, len(facts.class_names), shape)
    elif isinstance(network, Encoder):
        from jaxlt.models.clip.image_encoders import load_encoder

        load_encoder(network.label, shape)


def for_any_images(begins: BeginsWith) -> Recipe:
    """Returns what is recommended whatever the images are, with the network to begin with."""
    stage = Stage(method=METHOD, loss=LogitAdjusted(), optimizer=_OPTIMIZER)
    data = Data(profile=Native(), normalization=begins.normalization)
    return Recipe(data=data, network=begins.network, stages=(stage,))


def recommend(
    place: AnySource,
    facts: Facts,
    backbone: BeginsWith,
    share: float,
    *,
    epochs: int | None = None,
    on_accelerator: bool = False,
) -> tuple[Recipe, list[str]]:
    """Returns the recipe for a source, and a line on each choice.

    Args:
        place: the source.
        facts: what was found in it.
        backbone: see `backbone_of`.
        share: of the training images that are held out where there are no others to evaluate.
        epochs: that will take the place of the chosen ones, and are evaluated as often.
        on_accelerator: whether training is on one.
    """
    held_out = 0.0 if facts.num_val or facts.num_test else share
    counts = [left_of(count, held_out) for count in facts.class_counts]
    choices = chosen(
        sum(counts),
        len(counts),
        facts.side,
        backbone.needs,
        on_accelerator=on_accelerator,
    )
    if backbone.image_size is not None:
        why = f"image size {backbone.image_size}: that of the run whose weights it begins with"
        reasons = (why, *choices.reasons[1:])
        choices = choices._replace(image_size=backbone.image_size, reasons=reasons)
    limits = shot_limits(counts)
    augmentation, why_augmentation = _augmentation(facts, choices)
    precision: Any = "bfloat16" if on_accelerator else "float32"
    recipe = Recipe(
        data=Data(
            source=place,
            profile=Native(),
            image_size=choices.image_size,
            normalization=backbone.normalization,
            validation=held_out,
        ),
        network=backbone.network.replace(precision=precision),
        stages=(
            Stage(
                epochs=choices.epochs,
                batch_size=choices.batch_size,
                method=METHOD,
                loss=LogitAdjusted(),
                optimizer=_OPTIMIZER.replace(lr=choices.lr),
                augmentation=augmentation,
            ),
        ),
        evaluation=_evaluation(facts, epochs or choices.epochs, limits),
    )
    lines = [
        "all images are used, as many of each class as there are (--data.profile native)",
        _evaluated(facts, share) + _seen_before(facts, backbone),
        f"network {backbone.reason}",
        *choices.reasons,
        f"precision {precision}: {'an' if on_accelerator else 'no'} accelerator",
        f"augmentation {augmentation.shift}: {why_augmentation}",
        "logit-adjusted loss: it makes up for the number of images of each class, at no cost",
        "Focal-SAM: it looks for flat minima, above all of the rare classes",
        limits.reason,
    ]
    return recipe, lines


def left_of(count: int, share: float) -> int:
    """Returns how many of a class's images are trained on where a share is held out, about."""
    if share == 0:
        return count
    return count - held_out_count(count, share)


def _augmentation(facts: Facts, choices: Choices) -> tuple[Augmentation, str]:
    if facts.are_files and choices.image_size >= _RANDOM_CROPS_FROM:
        return Augmentation(shift="resized_crop_flip"), "a random part of each photo, and mirrored"
    if facts.channels == 1:
        return Augmentation(shift="crop"), "gray images may be signs, which are not mirrored"
    return Augmentation(shift="crop_flip"), "small images are shifted a little, and mirrored"


def _evaluation(facts: Facts, epochs: int, limits: Limits) -> Evaluation:
    # A large test set would otherwise take longer than the training between two evaluations.
    passes = math.ceil((facts.num_test or facts.num_val) / facts.num_images)
    return Evaluation(
        epochs=min(epochs, max(math.ceil(epochs / _EVALUATIONS), passes)),
        images="val" if facts.num_val and not facts.num_test else "test",
        many_above=limits.many_above,
        few_below=limits.few_below,
    )


def _evaluated(facts: Facts, share: float) -> str:
    if facts.num_test:
        chosen_by = "the val images" if facts.num_val else f"a share of {share:g} held out"
        return f"the test images are reported; settings are chosen by {chosen_by}"
    if facts.num_val:
        return (
            "there are no test images: the val images are reported, by which settings are chosen "
            "too, so expect a little less on new images"
        )
    return (
        f"there are no val and no test images: a share of {share:g} of the training images is held "
        "out (--validation), at least one of each class of two or more; settings are chosen by it "
        "and it is reported, so expect a little less on new images"
    )


def _seen_before(facts: Facts, begins: BeginsWith) -> str:
    """Returns what a reported accuracy may owe to images that the weights have seen."""
    if begins.image_size is None or facts.num_test:
        return ""
    return "; the run that it begins with may have been trained on some of these images"


def trial_of(recipe: Recipe, facts: Facts, share: float, epochs: int | None) -> Recipe:
    """Returns a short run of a recipe, judged by what is no test image.

    Args:
        recipe: what is to be trained in the end.
        facts: of its source.
        share: of the training images that are held out where there are no val images.
        epochs: of the trial; None for a third of the recipe's.
    """
    if epochs is None:
        epochs = max(1, round(recipe.first.epochs / _SHORTER))
    short = recipe.shortened(epochs)
    images: Any = "val" if facts.num_val else "test"
    if images == "test" and not recipe.data.holds_out:
        short = vary(short, validation=share)
    elif images == "val":
        short = vary(short, validation=0.0, validation_per_class=0)
    return short.replace(evaluation=short.evaluation.replace(epochs=epochs, images=images))


def baseline_of(recipe: Recipe) -> Recipe:
    """Returns the same recipe with SGD and cross-entropy."""
    return vary(recipe, method=SGD(), loss=CrossEntropy())


def search_of(name: str, recipe: Recipe, rhos: Sequence[float]) -> Search:
    """Returns what short runs try: radii, or as many learning rates where a method has no radius.

    Args:
        name: of the recipe.
        recipe: what is to be trained in the end.
        rhos: radii.
    """
    if has_radius(recipe.first.method):
        return Search("method.rho", tuple(f"{rho:g}" for rho in rhos), name)
    lr, last = recipe.first.optimizer.lr, len(rhos) - 1
    exponents = [2 * number / last - 1 for number in range(len(rhos))] if last else [0.0]
    rates = tuple(f"{lr * math.pow(_FACTOR_OF_LR, one):.3g}" for one in exponents)
    return Search("optimizer.lr", rates, name)
