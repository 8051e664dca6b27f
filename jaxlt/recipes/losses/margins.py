"""The losses with margins or a regularizer: LDAM, GCL, label-aware smoothing and LADE."""

from typing import Literal

import msgspec

from jaxlt import losses
from jaxlt.recipes.losses.loss import Loss
from jaxlt.recipes.part import NonNegative, Positive, Share


class LDAM(Loss, frozen=True, tag="ldam"):
    """Label-distribution-aware margins (Cao et al., NeurIPS 2019)."""

    label = "LDAM"
    max_margin: NonNegative = 0.5
    """Margin of the rarest class."""
    scale: Positive = 30.0
    """Factor on the cosines."""

    @property
    def logit_scale(self):  # noqa: D102 (see Loss, as below)
        return self.scale

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.ldam(x, y, class_counts, self.max_margin, self.scale)


class GCL(Loss, frozen=True, tag="gcl"):
    """Gaussian clouded logits (Li et al., CVPR 2022)."""

    label = "GCL"
    of_rows = False
    noise_scale: NonNegative = 0.5
    """Amplitude of the noise on the rarest class's cosine."""
    margin: NonNegative = 0.0
    """Margin on the cosine of the label."""
    scale: Positive = 30.0
    """Factor on the cosines."""
    focusing: NonNegative = 0.0
    """Focal exponent, 1 in its second stage."""

    @property
    def logit_scale(self):  # noqa: D102
        return self.scale

    def build(self, class_counts):  # noqa: D102
        options = msgspec.structs.asdict(self)
        return lambda x, y, moment: losses.gcl(
            x, y, class_counts, losses.gcl_noise(moment.key, x.shape), **options
        )


class LabelAwareSmoothing(Loss, frozen=True, tag="label_aware_smoothing"):
    """Label-aware smoothing (Zhong et al., CVPR 2021)."""

    label = "label-aware smoothing"
    head: Share = 0.3
    """Smoothing of the largest class."""
    tail: Share = 0.0
    """Smoothing of the smallest."""
    shape: Literal["concave", "linear", "convex"] = "concave"
    """How it grows with the number of images."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.label_aware_smoothing(
            x, y, class_counts, self.head, self.tail, self.shape
        )


class LADE(Loss, frozen=True, tag="lade"):
    """LADE (Hong et al., CVPR 2021): balanced softmax with a regularizer of the batch."""

    label = "LADE"
    of_rows = False
    weight: NonNegative = 0.1
    """Weight of the regularizer."""

    def build(self, class_counts):  # noqa: D102
        return lambda x, y, _: losses.lade(x, y, class_counts, weight=self.weight)
