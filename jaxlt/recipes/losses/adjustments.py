"""Cross-entropy of logits that are adjusted by how many images each class has."""

from jaxlt import losses
from jaxlt.recipes.losses.loss import Loss
from jaxlt.recipes.part import NonNegative


class LogitAdjusted(Loss, frozen=True, tag="logit_adjusted"):
    """Logit adjustment (Menon et al., ICLR 2021)."""

    label = "LA"
    tau: NonNegative = 1.0
    """Strength of the adjustment."""

    def build(self, class_counts):  # noqa: D102 (see Loss, as below)
        return lambda x, y, _: losses.logit_adjusted(x, y, class_counts, self.tau)


class BalancedSoftmax(Loss, frozen=True, tag="balanced_softmax"):
    """Balanced softmax (Ren et al., NeurIPS 2020)."""

    label = "balanced softmax"

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.balanced_softmax(x, y, class_counts)


class VectorScaling(Loss, frozen=True, tag="vector_scaling"):
    """The vector-scaling loss (Kini et al., NeurIPS 2021)."""

    label = "VS"
    gamma: NonNegative = 0.3
    """Exponent of the multiplicative adjustment."""
    tau: NonNegative = 1.0
    """Strength of the additive adjustment."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.vector_scaling(x, y, class_counts, self.gamma, self.tau)
