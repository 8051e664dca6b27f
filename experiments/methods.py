"""From a stage of a recipe to the optax transformation of its method."""

import math
from collections.abc import Callable
from typing import Any

import optax

import jaxlt
from experiments.parameters import perturbed
from experiments.stage import Stage


def build_method(
    stage: Stage, class_counts: tuple[int, ...], second_stage: bool = False
) -> optax.GradientTransformation:
    """Builds the method.

    Args:
        stage: what to build.
        class_counts: training images of each class.
        second_stage: build SSE-SAM's second stage.

    Raises:
        ValueError: a hyperparameter is out of range.
    """
    return _methods(stage, class_counts, second_stage)[stage.method]()


def _methods(
    stage: Stage, class_counts: tuple[int, ...], second_stage: bool
) -> dict[str, Callable[[], optax.GradientTransformation]]:
    whole = stage.trainable == stage.scope == "all"
    mask: Any = {"mask": None if whole else lambda params: perturbed(stage, params)}
    scope = {**mask, "adaptive": stage.adaptive}
    tail = {"tail_threshold": stage.tail_threshold}
    radius = _radius(stage, sum(class_counts))
    return {
        "sgd": optax.identity,
        "sam": lambda: jaxlt.sam(radius, **scope),
        "imb_sam": lambda: jaxlt.imb_sam(
            class_counts, radius, group_mean=stage.group_mean, **tail, **scope
        ),
        "sse_sam": lambda: jaxlt.sse_sam(
            class_counts,
            stage.head_rho,
            stage.tail_rho,
            switch_step=0 if second_stage else None,
            **tail,
            **scope,
        ),
        "focal_sam": lambda: jaxlt.focal_sam(
            class_counts, radius, sharpness=stage.sharpness, gamma=stage.gamma, **scope
        ),
        "cc_sam": lambda: jaxlt.cc_sam(
            class_counts,
            radius_scale=stage.radius_scale,
            flat_ratio=stage.flat_ratio,
            max_relative_radius=stage.max_relative_radius,
            grad_norm=stage.grad_norm,
            class_weighting=stage.class_weighting,
            direction=stage.direction,
            magnitude=stage.magnitude,
            **scope,
        ),
        "gradient_norm_penalty": lambda: jaxlt.gradient_norm_penalty(
            stage.penalty, radius, **scope
        ),
        "random_perturbation": lambda: jaxlt.random_perturbation(radius, seed=0, **mask),
    }


def _radius(stage: Stage, num_images: int) -> float | optax.Schedule:
    if not stage.rho_epochs:
        return stage.rho
    boundaries = [stage.num_steps(num_images, epoch) for epoch in stage.rho_epochs]
    constants = [optax.constant_schedule(rho) for rho in (stage.rho, *stage.rho_values)]
    return optax.join_schedules(constants, boundaries)


def switch_step(stage: Stage, num_images: int) -> int | None:
    """Returns the first step of SSE-SAM's second stage, None if there is none."""
    if stage.head_rho == 0:
        return 0
    if stage.switch_at == 1:
        return None
    return stage.num_steps(num_images, math.ceil(stage.switch_at * stage.epochs))
