"""Methods that look for flat minima by other means than the worst loss nearby."""

import jaxlt
from jaxlt.recipes.methods.method import OneRadius
from jaxlt.recipes.part import NonNegative, Positive


class GradientNormPenalty(OneRadius, frozen=True, tag="gradient_norm_penalty"):
    """Gradient-norm penalty (Zhao et al., ICML 2022)."""

    label = "gradient-norm penalty"
    penalty: NonNegative = 0.01
    """Weight of the gradient's norm."""
    rho: Positive = 0.05
    """Distance over which the Hessian is taken as a difference."""
    adaptive: bool = False
    """ASAM: distance relative to each weight's magnitude."""

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        radius = self.radius(clock)
        return jaxlt.gradient_norm_penalty(self.penalty, radius, mask=mask, adaptive=self.adaptive)


class RandomPerturbation(OneRadius, frozen=True, tag="random_perturbation"):
    """SAM in a random direction, drawn anew at each step."""

    label = "random perturbation"

    def __post_init__(self):
        super().__post_init__()
        self.check("ascent_share", self.ascent_share == 1, "1 where no image decides the direction")

    def build(self, class_counts, clock, mask=None, phase=0):  # noqa: D102
        return jaxlt.random_perturbation(self.radius(clock), seed=0, mask=mask)
