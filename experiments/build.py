"""From a stage of a recipe to the network, the loss and the optimizer that it names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.methods import build_method
from experiments.parameters import kernel_and_bias, trained
from experiments.recipe import Recipe
from experiments.stage import Stage
from jaxlt import UsageError, losses, per_shard
from jaxlt.losses.feature_adversary import adversarial_losses, released_class_weights
from jaxlt.models import ImageClassifier, create_model
from jaxlt.training import Moment, PerExampleLoss, Regime, schedules
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.weight_average import weight_average

ClassCounts = tuple[int, ...]

# Losses that draw for each row of the batch, or have a term of the whole batch.
_LOSSES_OF_WHOLE_BATCHES = ("gcl", "lade")


def build_model(
    recipe: Recipe,
    num_classes: int,
    image_shape: tuple[int, int, int],
    head: str | None = None,
    *,
    frozen_trunk_norm: bool = False,
) -> ImageClassifier:
    """Builds the network, with the recipe's kind of classifier or another, see `create_model`."""
    return create_model(
        recipe.model,
        num_classes,
        classifier=head or recipe.classifier,
        dtype=jnp.dtype(recipe.precision),
        image_shape=image_shape,
        cosine_scale=recipe.cosine_scale,
        remat=recipe.remat,
        frozen_trunk_norm=frozen_trunk_norm,
        adaptation=recipe.adapted(),
    )


def build_loss(stage: Stage, class_counts: ClassCounts) -> PerExampleLoss:
    """Builds the per-example loss, with class-balanced weights where the stage has them."""
    per_example = _losses(stage, class_counts)[stage.loss]
    if stage.reweight_epoch is None:
        return per_example
    start = stage.num_steps(sum(class_counts), stage.reweight_epoch)
    class_weights = losses.deferred_reweighting(class_counts, start, stage.reweight_beta)

    def weighted(logits: jax.Array, labels: jax.Array, moment: Moment) -> jax.Array:
        weights = class_weights(moment.step)[labels]
        if stage.reweight_mean == "weights":
            weights = weights / weights.mean()
        return per_example(logits, labels, moment) * weights

    return weighted


def _losses(stage: Stage, class_counts: ClassCounts) -> dict[str, PerExampleLoss]:
    def gcl(logits: jax.Array, labels: jax.Array, moment: Moment) -> jax.Array:
        return losses.gcl(
            logits,
            labels,
            class_counts,
            losses.gcl_noise(moment.key, logits.shape),
            noise_scale=stage.noise_scale,
            margin=stage.gcl_margin,
            scale=stage.scale,
            focusing=stage.gcl_focusing,
        )

    return {
        "cross_entropy": lambda x, y, _: losses.cross_entropy(x, y),
        "focal": lambda x, y, _: losses.focal(x, y, stage.focal_gamma),
        "ldam": lambda x, y, _: losses.ldam(x, y, class_counts, stage.max_margin, stage.scale),
        "logit_adjusted": lambda x, y, _: losses.logit_adjusted(x, y, class_counts, stage.tau),
        "balanced_softmax": lambda x, y, _: losses.balanced_softmax(x, y, class_counts),
        "vector_scaling": lambda x, y, _: losses.vector_scaling(
            x, y, class_counts, stage.scaling_gamma, stage.tau
        ),
        "gcl": gcl,
        "label_aware_smoothing": lambda x, y, _: losses.label_aware_smoothing(
            x,
            y,
            class_counts,
            stage.smoothing_head,
            stage.smoothing_tail,
            stage.smoothing_shape,
        ),
        "lade": lambda x, y, _: losses.lade(x, y, class_counts, weight=stage.lade_weight),
    }


def build_regime(
    stage: Stage, class_counts: ClassCounts, first_step: int, micro_batch: int | None = None
) -> Regime:
    """Builds what the stage does to images, parameters and features beside its loss."""
    return Regime(
        first_step=first_step,
        mixup=stage.mixup,
        row_losses=stage.loss not in _LOSSES_OF_WHOLE_BATCHES
        and (stage.reweight_epoch is None or stage.reweight_mean == "batch"),
        loss_of_features=None
        if stage.adversary == "none"
        else _adversary(stage, build_loss(stage, class_counts), class_counts),
        running_statistics=stage.batch_norm == "running",
        hold_statistics=stage.hold_statistics,
        spectral_norm=build_spectral_norm(stage),
        micro_batch=micro_batch,
    )


def build_spectral_norm(stage: Stage) -> SpectralNorm | None:
    """Builds the stage's spectral normalisation, None for none."""
    return None if stage.spectral_norm == "none" else SpectralNorm(stage.spectral_norm)


def _adversary(stage: Stage, loss: PerExampleLoss, class_counts: ClassCounts) -> Callable:
    released = stage.adversary == "released"
    weights = released_class_weights(class_counts, stage.adversary_divisor) if released else None

    def losses_of_features(features: Any, classifier: Any, labels: Any, moment: Moment):
        epoch = moment.step * stage.batch_size // sum(class_counts)
        return adversarial_losses(
            features,
            classifier,
            lambda x, y: loss(x, y, moment),
            labels,
            len(class_counts),
            ratio=jnp.minimum((epoch + 1) / stage.epochs, stage.adversary_limit),
            radius=stage.adversary_radius,
            grouping="class" if released else "example",
            class_weights=weights,
        )

    return losses_of_features


def build_optimizer(
    stage: Stage,
    class_counts: ClassCounts,
    *,
    second_stage: bool = False,
    axis_name: str | None = None,
) -> optax.GradientTransformation:
    """Builds the optax chain: method, weight decay, SGD with momentum, weight averaging.

    Args:
        stage: what to build.
        class_counts: training images of each class.
        second_stage: build SSE-SAM's second stage; both of its stages have the same state.
        axis_name: mapped axis over whose shards the method is to average, see `jaxlt.per_shard`;
            None where it sees the whole batch. The state is the same.

    Raises:
        UsageError: a hyperparameter of the method is out of range.
    """
    num_images = sum(class_counts)
    learning_rate = schedules.by_epoch(
        _learning_rates(stage)[stage.schedule](), num_images, stage.batch_size
    )
    try:
        method = build_method(stage, class_counts, second_stage)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if axis_name is not None:
        method = per_shard(method, axis_name)
    sgd = optax.chain(
        optax.add_decayed_weights(stage.weight_decay),
        optax.sgd(learning_rate, momentum=stage.momentum, nesterov=stage.nesterov),
    )
    links = [method, sgd if stage.trainable == "all" else _of_trained_leaves(stage, sgd)]
    if stage.classifier_lr_factor != 1:
        links.append(optax.masked(optax.scale(stage.classifier_lr_factor), kernel_and_bias))
    if stage.swa_epoch is not None:
        links.append(
            weight_average(stage.swa_epoch, num_images=num_images, batch_size=stage.batch_size)
        )
    return optax.chain(*links)


def _of_trained_leaves(
    stage: Stage, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
    return optax.partition(
        {True: inner, False: optax.set_to_zero()}, lambda params: trained(stage, params)
    )


def _learning_rates(stage: Stage) -> dict[str, Callable[[], schedules.EpochFn]]:
    lr, epochs = stage.lr, stage.epochs
    # After 160 and 180 of the usual 200 epochs.
    after = (epochs * 0.8, epochs * 0.9)
    falls = {"warmup": 5, "after": after}
    return {
        "constant": lambda: schedules.constant(lr),
        "cosine": lambda: schedules.cosine(lr, epochs),
        "cosine_stepped_first": lambda: schedules.cosine_stepped_first(lr, epochs),
        "warmup_cosine": lambda: schedules.warmup_cosine(lr, epochs, max(1, epochs // 16)),
        "ldam": lambda: schedules.multistep(lr, factors=(0.01, 0.0001), **falls),
        "tenths": lambda: schedules.multistep(lr, factors=(0.1, 0.01), **falls),
        "cc_sam": lambda: schedules.cc_sam_multistep(lr, after),
    }
