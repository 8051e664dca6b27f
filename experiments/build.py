"""From a recipe to the network, the loss and the optimizer that it names."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import jaxlt
from experiments.recipe import Recipe
from jaxlt import UsageError, losses
from jaxlt.models import ImageClassifier, create_model
from jaxlt.training import schedules
from jaxlt.training.step import PerExampleLoss

ClassCounts = tuple[int, ...]


def num_steps(recipe: Recipe, num_images: int, epochs: float | None = None) -> int:
    """Steps that so many epochs take (all of the recipe's by default), rounded up."""
    epochs = recipe.epochs if epochs is None else epochs
    return math.ceil(epochs * num_images / recipe.batch_size)


def build_model(
    recipe: Recipe, num_classes: int, image_shape: tuple[int, int, int]
) -> ImageClassifier:
    """Builds the network."""
    return create_model(
        recipe.model,
        num_classes,
        classifier=recipe.classifier,
        dtype=jnp.dtype(recipe.precision),
        image_shape=image_shape,
    )


def build_loss(recipe: Recipe, class_counts: ClassCounts) -> PerExampleLoss:
    """Builds the per-example loss, with deferred re-weighting where the recipe has it.

    Re-weighted losses are divided by the batch size, not by the sum of their weights.
    """
    per_example = _losses(recipe, class_counts)[recipe.loss]
    if recipe.reweight_epoch is None:
        return lambda logits, labels, step: per_example(logits, labels)
    start = num_steps(recipe, sum(class_counts), recipe.reweight_epoch)
    class_weights = losses.deferred_reweighting(class_counts, start, recipe.reweight_beta)
    return lambda logits, labels, step: per_example(logits, labels) * class_weights(step)[labels]


def _losses(recipe: Recipe, class_counts: ClassCounts) -> dict[str, Callable]:
    return {
        "cross_entropy": losses.cross_entropy,
        "focal": lambda x, y: losses.focal(x, y, recipe.focal_gamma),
        "ldam": lambda x, y: losses.ldam(x, y, class_counts, recipe.max_margin, recipe.scale),
        "logit_adjusted": lambda x, y: losses.logit_adjusted(x, y, class_counts, recipe.tau),
        "balanced_softmax": lambda x, y: losses.balanced_softmax(x, y, class_counts),
        "vector_scaling": lambda x, y: losses.vector_scaling(
            x, y, class_counts, recipe.scaling_gamma, recipe.tau
        ),
    }


def build_optimizer(
    recipe: Recipe, class_counts: ClassCounts, *, second_stage: bool = False
) -> optax.GradientTransformation:
    """Builds the optax chain: method, weight decay, SGD with momentum.

    Args:
        recipe: what to build.
        class_counts: training images of each class.
        second_stage: build SSE-SAM's second stage; both stages have the same state.

    Raises:
        UsageError: a hyperparameter of the method is out of range.
    """
    learning_rate = schedules.by_epoch(
        _learning_rates(recipe)[recipe.schedule](), sum(class_counts), recipe.batch_size
    )
    try:
        method = _methods(recipe, class_counts, second_stage)[recipe.method]()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return optax.chain(
        method,
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(learning_rate, momentum=recipe.momentum, nesterov=recipe.nesterov),
    )


def _learning_rates(recipe: Recipe) -> dict[str, Callable[[], schedules.EpochFn]]:
    lr, epochs = recipe.lr, recipe.epochs
    falls = {"warmup": 5, "after": (160, 180)}
    return {
        "constant": lambda: schedules.constant(lr),
        "cosine": lambda: schedules.cosine(lr, epochs),
        "cosine_stepped_first": lambda: schedules.cosine_stepped_first(lr, epochs),
        "ldam": lambda: schedules.multistep(lr, factors=(0.01, 0.0001), **falls),
        "tenths": lambda: schedules.multistep(lr, factors=(0.1, 0.01), **falls),
        "cc_sam": lambda: schedules.cc_sam_multistep(lr),
    }


def _methods(
    recipe: Recipe, class_counts: ClassCounts, second_stage: bool
) -> dict[str, Callable[[], optax.GradientTransformation]]:
    scope = {
        "mask": _classifier_only if recipe.scope == "classifier" else None,
        "adaptive": recipe.adaptive,
    }
    tail = {"tail_threshold": recipe.tail_threshold}
    radius = _radius(recipe, sum(class_counts))
    return {
        "sgd": optax.identity,
        "sam": lambda: jaxlt.sam(radius, **scope),
        "imb_sam": lambda: jaxlt.imb_sam(
            class_counts, radius, group_mean=recipe.group_mean, **tail, **scope
        ),
        "sse_sam": lambda: jaxlt.sse_sam(
            class_counts,
            recipe.head_rho,
            recipe.tail_rho,
            switch_step=0 if second_stage else None,
            **tail,
            **scope,
        ),
        "focal_sam": lambda: jaxlt.focal_sam(
            class_counts, radius, sharpness=recipe.sharpness, gamma=recipe.gamma, **scope
        ),
        "cc_sam": lambda: jaxlt.cc_sam(
            class_counts,
            radius_scale=recipe.radius_scale,
            flat_ratio=recipe.flat_ratio,
            max_relative_radius=recipe.max_relative_radius,
            grad_norm=recipe.grad_norm,
            class_weighting=recipe.class_weighting,
            **scope,
        ),
    }


def _radius(recipe: Recipe, num_images: int) -> float | optax.Schedule:
    if not recipe.rho_epochs:
        return recipe.rho
    boundaries = [num_steps(recipe, num_images, epoch) for epoch in recipe.rho_epochs]
    constants = [optax.constant_schedule(rho) for rho in (recipe.rho, *recipe.rho_values)]
    return optax.join_schedules(constants, boundaries)


def switch_step(recipe: Recipe, num_images: int) -> int | None:
    """Returns the first step of SSE-SAM's second stage, None if there is none."""
    if recipe.head_rho == 0:
        return 0
    if recipe.switch_at == 1:
        return None
    return num_steps(recipe, num_images, math.ceil(recipe.switch_at * recipe.epochs))


def _classifier_only(params: dict) -> dict[str, bool]:
    return {name: name == "classifier" for name in params}


def count_parameters(params: object) -> int:
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
