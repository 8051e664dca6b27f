"""The methods, as parts of a recipe: how a stage takes its gradient.

To add one, write a subclass of `Method` and name it in the union at the end. A method of your own
needs no union: hand `Stage(method=...)` an instance of it.
"""

import copy
import itertools
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import jax
import msgspec
import numpy as np
import optax

import jaxlt
from jaxlt.recipes.part import (
    Choice,
    Clock,
    Count,
    CountOrZero,
    NonNegative,
    Positive,
    Share,
    check,
)

ClassCounts: TypeAlias = tuple[int, ...]
Mask: TypeAlias = Any


class Method(Choice, frozen=True):
    """How the gradient is taken.

    Attributes:
        label: the method's name in tables and pictures.
    """

    label: ClassVar[str] = "?"

    def build(
        self, class_counts: ClassCounts, clock: Clock, mask: Mask = None, phase: int = 0
    ) -> optax.GradientTransformation:
        """Builds the optax transformation.

        Args:
            class_counts: training images of each class.
            clock: turns epochs into steps.
            mask: the perturbed parameters, as `jaxlt.sam` takes it; None for all.
            phase: which of the method's forms, see `phases`. All have the same state.
        """
        raise NotImplementedError

    def phases(self, clock: Clock) -> tuple[int, ...]:
        """Returns the steps at which the method changes its form; each form is a program."""
        del clock
        return ()

    def perturbed_alone(self, class_counts: ClassCounts, phase: int) -> np.ndarray | None:
        """Returns the classes (C,) bool that alone are perturbed; None where it is not so."""
        del class_counts, phase

    def scaled(self, factor: float) -> Self:
        """Returns the method with everything given in epochs, times a factor."""
        del factor
        return self

    def tail(self, class_counts: ClassCounts) -> np.ndarray | None:
        """Returns the method's tail (C,) bool, None for a method without one."""
        del class_counts


class SGD(Method, frozen=True, tag="sgd"):
    """The plain gradient."""

    label = "SGD"

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102 (see Method, as below)
        return optax.identity()


class _Radius(Method, frozen=True):
    """A method with one radius, which may change at some epochs."""

    rho: NonNegative = 0.05
    """Radius of the perturbation."""
    rho_epochs: tuple[CountOrZero, ...] = ()
    """Zero-based epochs at which the radius changes to the next of rho_values."""
    rho_values: tuple[NonNegative, ...] = ()
    """Radii from each of rho_epochs on; before the first it is rho."""
    scope: Literal["all", "classifier"] = "all"
    """Parameters that are perturbed."""

    def __post_init__(self):
        super().__post_init__()
        epochs = self.rho_epochs
        ascending = all(a < b for a, b in itertools.pairwise((-1, *epochs)))
        check("rho_epochs", epochs, ascending, "ascending, from 0 on")
        need = f"one radius for each of the {len(epochs)} rho_epochs"
        check("rho_values", self.rho_values, len(self.rho_values) == len(epochs), need)

    def radius(self, clock: Clock) -> float | optax.Schedule:
        """Returns the radius, or its schedule over steps."""
        if not self.rho_epochs:
            return self.rho
        boundaries = [clock.steps(epoch) for epoch in self.rho_epochs]
        constants = [optax.constant_schedule(rho) for rho in (self.rho, *self.rho_values)]
        return optax.join_schedules(constants, boundaries)

    def scaled(self, factor: float) -> Self:
        epochs: list[int] = []
        for epoch in self.rho_epochs:
            epochs.append(max(math.floor(epoch * factor), *(x + 1 for x in epochs[-1:]), 0))
        return self.replace(rho_epochs=tuple(epochs))


class SAM(_Radius, frozen=True, tag="sam"):
    """SAM (Foret et al., ICLR 2021): one perturbation, of the loss of all classes."""

    label = "SAM"
    adaptive: bool = False
    """ASAM: radius relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.sam(self.radius(clock), mask=mask, adaptive=self.adaptive)


class ImbSAM(_Radius, frozen=True, tag="imb_sam"):
    """ImbSAM (Zhou et al., ICCV 2023): SAM on the tail, plain descent on the head."""

    label = "ImbSAM"
    tail_threshold: Count = 20
    """Classes with fewer training images are tail."""
    group_mean: bool = False
    """Divide head and tail losses by their own counts in place of the batch size."""
    adaptive: bool = False
    """ASAM: radius relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.imb_sam(
            class_counts,
            self.radius(clock),
            tail_threshold=self.tail_threshold,
            group_mean=self.group_mean,
            mask=mask,
            adaptive=self.adaptive,
        )

    def perturbed_alone(self, class_counts, phase):  # noqa: D102
        return self.tail(class_counts)

    def tail(self, class_counts):  # noqa: D102
        return np.array(class_counts) < self.tail_threshold


class SSESAM(Method, frozen=True, tag="sse_sam"):
    """SSE-SAM (Lyu et al., AAAI 2025): SAM on head and tail apart, later on the tail alone."""

    label = "SSE-SAM"
    head_rho: NonNegative = 0.05
    """Radius of the head in the first phase."""
    tail_rho: NonNegative = 0.05
    """Radius of the tail."""
    tail_threshold: Count = 20
    """Classes with fewer training images are tail."""
    switch_at: Share = 0.7
    """Share of the epochs after which the head's radius is 0; 1 for never."""
    scope: Literal["all", "classifier"] = "all"
    """Parameters that are perturbed."""
    adaptive: bool = False
    """ASAM: radii relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.sse_sam(
            class_counts,
            self.head_rho,
            self.tail_rho,
            tail_threshold=self.tail_threshold,
            switch_step=0 if phase else None,
            mask=mask,
            adaptive=self.adaptive,
        )

    def phases(self, clock):  # noqa: D102
        if self.head_rho == 0 or self.switch_at == 1:
            return (0,) if self.head_rho == 0 else ()
        return (clock.steps(math.ceil(self.switch_at * clock.epochs)),)

    def perturbed_alone(self, class_counts, phase):  # noqa: D102
        return self.tail(class_counts) if phase else None

    def tail(self, class_counts):  # noqa: D102
        return np.array(class_counts) < self.tail_threshold


class FocalSAM(_Radius, frozen=True, tag="focal_sam"):
    """Focal-SAM (Li et al., ICML 2025): the sharpness of rare classes weighs more."""

    label = "Focal-SAM"
    sharpness_weight: NonNegative = 0.8
    """Weight of the sharpness term, the paper's lambda."""
    gamma: NonNegative = 3.0
    """Focusing exponent; 0 weighs all classes alike."""
    adaptive: bool = False
    """ASAM: radius relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.focal_sam(
            class_counts,
            self.radius(clock),
            sharpness_weight=self.sharpness_weight,
            gamma=self.gamma,
            mask=mask,
            adaptive=self.adaptive,
        )


class CCSAM(Method, frozen=True, tag="cc_sam"):
    """CC-SAM, first stage (Zhou et al., CVPR 2023): a perturbation and a radius for each class."""

    label = "CC-SAM"
    radius_scale: NonNegative = 1.0
    """Factor on the characteristic radius."""
    flat_ratio: Share = 1.0
    """Weight of the perturbed loss; the clean one has the rest."""
    max_relative_radius: NonNegative | None = 0.05
    """Bound on the perturbation's norm over that of the perturbed parameters."""
    grad_norm: Literal["global", "per_leaf"] = "global"
    """One norm over all perturbed parameters (paper), or one a tensor (released code)."""
    class_weighting: Literal["sample", "class"] = "sample"
    """Weigh classes by their images in the batch, or alike."""
    direction: Literal["gradient", "random"] = "gradient"
    """Perturb along each class's gradient, or along Gaussian noise."""
    magnitude: Literal["characteristic", "constant"] = "characteristic"
    """The paper's radius, or radius_scale for all classes."""
    scope: Literal["all", "classifier"] = "classifier"
    """Parameters that are perturbed; the paper and its code perturb the classifier."""
    adaptive: bool = False
    """ASAM: radii relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.cc_sam(
            class_counts,
            radius_scale=self.radius_scale,
            flat_ratio=self.flat_ratio,
            max_relative_radius=self.max_relative_radius,
            grad_norm=self.grad_norm,
            class_weighting=self.class_weighting,
            direction=self.direction,
            magnitude=self.magnitude,
            mask=mask,
            adaptive=self.adaptive,
        )


class GradientNormPenalty(_Radius, frozen=True, tag="gradient_norm_penalty"):
    """Gradient-norm penalty (Zhao et al., ICML 2022)."""

    label = "gradient-norm penalty"
    penalty: NonNegative = 0.01
    """Weight of the gradient's norm."""
    rho: Positive = 0.05
    """Distance over which the Hessian is taken as a difference."""
    adaptive: bool = False
    """ASAM: distance relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        options = {"mask": mask, "adaptive": self.adaptive}
        return jaxlt.gradient_norm_penalty(self.penalty, self.radius(clock), **options)


class RandomPerturbation(_Radius, frozen=True, tag="random_perturbation"):
    """SAM in a random direction, drawn anew at each step."""

    label = "random perturbation"

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.random_perturbation(self.radius(clock), seed=0, mask=mask)


def with_radius(method: Method, rho: float | jax.Array) -> Method:
    """Returns the method with another radius, which may be traced and so is not checked."""
    changed = copy.copy(method)
    msgspec.structs.force_setattr(changed, "rho", rho)
    return changed


def has_radius(method: Method) -> bool:
    """Whether the method has one radius, which several runs together may vary."""
    return isinstance(method, _Radius)


if TYPE_CHECKING:
    AnyMethod: TypeAlias = Method
else:
    AnyMethod = (
        SGD | SAM | ImbSAM | SSESAM | FocalSAM | CCSAM | GradientNormPenalty | RandomPerturbation
    )
