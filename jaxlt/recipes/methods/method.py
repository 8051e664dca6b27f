"""What all methods have in common, and those that perturb once, for all classes together."""

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import optax
from msgspec import Meta

import jaxlt
from jaxlt.recipes.part import Choice, Clock, Count, CountOrZero, NonNegative

ClassCounts: TypeAlias = tuple[int, ...]
Mask: TypeAlias = Any
# In place of a phase: a step between two whole ones, see `jaxlt.every`.
REUSED = -1
BatchShare: TypeAlias = Annotated[float, Meta(gt=0, le=1, extra={"need": "in (0, 1]"})]


class Method(Choice, frozen=True):
    """How the gradient is taken; `label` is the method's name in tables and pictures."""

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
        return ()

    def perturbed_alone(self, class_counts: ClassCounts, phase: int) -> np.ndarray | None:
        """Returns the classes (C,) bool that alone are perturbed; None where it is not so.

        Args:
            class_counts: training images of each class.
            phase: as of `build`.
        """

    def scaled(self, factor: float) -> Self:
        """Returns the method with everything given in epochs, times a factor."""
        return self

    def tail(self, class_counts: ClassCounts) -> np.ndarray | None:
        """Returns the classes (C,) bool below `tail_threshold`, None for a method without one."""
        threshold = getattr(self, "tail_threshold", None)
        return None if threshold is None else np.array(class_counts) < threshold


class SGD(Method, frozen=True, tag="sgd"):
    """The plain gradient."""

    label = "SGD"

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102 (see Method, as below)
        return optax.identity()


class Reusing(Method, frozen=True):
    """A method whose gradient may be reused for some steps, see `jaxlt.every`."""

    every: Count = 1
    """Steps per whole gradient, whose lasting part is reused in between (LookSAM)."""
    alpha: NonNegative = 0.1
    """Length of the reused part over the plain gradient's; for every above 1."""


class OneRadius(Reusing, frozen=True):
    """A method with one radius, which may change at some epochs."""

    rho: NonNegative = 0.05
    """Radius of the perturbation."""
    rho_epochs: tuple[CountOrZero, ...] = ()
    """Zero-based epochs at which the radius changes to the next of rho_values."""
    rho_values: tuple[NonNegative, ...] = ()
    """Radii from each of rho_epochs on; before the first it is rho."""
    scope: Literal["all", "classifier"] = "all"
    """Parameters that are perturbed."""
    ascent_share: BatchShare = 1.0
    """Share of the batch, its first images, whose gradient gives the direction."""

    def __post_init__(self):
        super().__post_init__()
        ascending = all(a < b for a, b in itertools.pairwise((-1, *self.rho_epochs)))
        self.check("rho_epochs", ascending, "ascending, from 0 on")
        number = len(self.rho_epochs)
        need = f"one radius for each of the {number} rho_epochs"
        self.check("rho_values", len(self.rho_values) == number, need)

    def radius(self, clock: Clock) -> float | optax.Schedule:
        """Returns the radius, or its schedule over steps."""
        if not self.rho_epochs:
            return self.rho
        boundaries = [clock.steps(epoch) for epoch in self.rho_epochs]
        constants = [optax.constant_schedule(rho) for rho in (self.rho, *self.rho_values)]
        return optax.join_schedules(constants, boundaries)

    def scaled(self, factor: float) -> Self:  # noqa: D102 (see Method)
        epochs: list[int] = []
        for epoch in self.rho_epochs:
            epochs.append(max(math.floor(epoch * factor), *(x + 1 for x in epochs[-1:]), 0))
        return self.replace(rho_epochs=tuple(epochs))


class SAM(OneRadius, frozen=True, tag="sam"):
    """SAM (Foret et al., ICLR 2021): one perturbation, of the loss of all classes."""

    label = "SAM"
    adaptive: bool = False
    """ASAM: radius relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.sam(self.radius(clock), mask=mask, adaptive=self.adaptive)


class FocalSAM(OneRadius, frozen=True, tag="focal_sam"):
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
