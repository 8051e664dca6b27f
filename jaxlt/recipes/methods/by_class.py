"""The methods that perturb some classes alone, or each class by itself."""

import math
from typing import Literal

import msgspec

import jaxlt
from jaxlt.recipes.methods.method import BatchShare, OneRadius, Reusing
from jaxlt.recipes.part import Count, NonNegative, Share


class ImbSAM(OneRadius, frozen=True, tag="imb_sam"):
    """ImbSAM (Zhou et al., ICCV 2023): SAM on the tail, plain descent on the head."""

    label = "ImbSAM"
    tail_threshold: Count = 20
    """Classes with fewer training images are tail."""
    group_mean: bool = False
    """Divide head and tail losses by their own counts in place of the batch size."""
    adaptive: bool = False
    """ASAM: radius relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102 (see Method, as below)
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


class SSESAM(Reusing, frozen=True, tag="sse_sam"):
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
    ascent_share: BatchShare = 1.0
    """Share of the batch, its first images, whose gradient gives the direction."""

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
        if self.head_rho == 0:
            return (0,)
        never = self.switch_at == 1
        return () if never else (clock.steps(math.ceil(self.switch_at * clock.epochs)),)

    def perturbed_alone(self, class_counts, phase):  # noqa: D102
        return self.tail(class_counts) if phase else None


class CCSAM(Reusing, frozen=True, tag="cc_sam"):
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
        options = msgspec.structs.asdict(self)
        # What the stage makes of the method.
        for name in ("scope", "every", "alpha"):
            del options[name]
        return jaxlt.cc_sam(class_counts, mask=mask, **options)
