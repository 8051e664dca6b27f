"""A recipe: every number that a run depends on, as data."""

import dataclasses
import itertools
from typing import Literal

from jaxlt import UsageError

Method = Literal["sgd", "sam", "imb_sam", "sse_sam", "focal_sam", "cc_sam"]
Loss = Literal[
    "cross_entropy", "focal", "ldam", "logit_adjusted", "balanced_softmax", "vector_scaling"
]
Schedule = Literal["constant", "cosine", "cosine_stepped_first", "ldam", "tenths", "cc_sam"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the run, with the field's usual values for CIFAR-LT as defaults."""

    dataset: str = "tfds:cifar10"
    """digits, idx:DIR, tfds:NAME or folder:DIR."""
    image_size: int | None = None
    """Side in pixels that images are resized to; None keeps them (folder: 32)."""
    profile: Literal["exponential", "step", "balanced"] = "exponential"
    """Shape of the class counts from head to tail."""
    imbalance_factor: float = 100.0
    """Images of the largest class over images of the smallest, at least 1."""
    max_per_class: int | None = None
    """Images of the largest class; None for as many as every class has."""
    class_order: tuple[int, ...] | None = None
    """Classes from head to tail; None for 0, 1, 2, ..."""
    selection: Literal["shuffled", "first"] = "shuffled"
    """Which images of a class: those that LDAM-DRW's shuffle leaves first, or the first."""
    split_seed: int = 0
    """Seed of the selection."""
    split_file: str | None = None
    """File with the selected images: read if it exists, else written. Replaces the six above."""
    augmentation: Literal["none", "crop", "crop_flip"] = "crop_flip"
    """Random crop after padding by 4 pixels, and random horizontal flip."""

    model: str = "resnet32"
    """resnet20/32/44/56/110 (CIFAR ResNets), resnet20_gn/32_gn (with group norm), resnet34 (3x3
    stem), small_vit, small_conv or mlp."""
    classifier: Literal["linear", "cosine"] = "linear"
    """Last layer; cosine has normalised features and weights, as LDAM needs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's computations; parameters and logits stay float32."""

    loss: Loss = "cross_entropy"
    """Per-example loss."""
    focal_gamma: float = 2.0
    """Exponent of the focal loss."""
    max_margin: float = 0.5
    """LDAM: margin of the rarest class."""
    scale: float = 30.0
    """LDAM: factor on the cosines."""
    tau: float = 1.0
    """logit_adjusted, vector_scaling: strength of the additive adjustment."""
    scaling_gamma: float = 0.3
    """vector_scaling: exponent of the multiplicative adjustment."""
    reweight_epoch: int | None = None
    """First zero-based epoch with class-balanced weights (DRW); None for never."""
    reweight_beta: float = 0.9999
    """DRW: beta of the effective number."""

    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, over all devices."""
    lr: float = 0.1
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate by epoch: ldam and tenths warm up for 5 epochs and fall after 160 and 180 by
    0.01 and 0.0001, or by 0.1 and 0.01; cosine_stepped_first ends with an epoch at 0."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: float = 2e-4
    """Added to the final gradient as weight_decay * w, for all parameters."""

    method: Method = "sgd"
    """How the gradient is taken."""
    rho: float = 0.05
    """sam, imb_sam, focal_sam: radius. imb_sam: of the tail."""
    rho_epochs: tuple[int, ...] = ()
    """Zero-based epochs at which the radius changes to the next of rho_values."""
    rho_values: tuple[float, ...] = ()
    """Radii from each of rho_epochs on; before the first it is rho."""
    head_rho: float = 0.05
    """sse_sam: radius of the head in the first stage."""
    tail_rho: float = 0.05
    """sse_sam: radius of the tail."""
    switch_at: float = 0.7
    """sse_sam: share of the epochs after which the head's radius is 0; 1 for never."""
    tail_threshold: int = 20
    """imb_sam, sse_sam: classes with fewer training images are tail."""
    group_mean: bool = False
    """imb_sam: divide head and tail losses by their own counts in place of the batch size."""
    sharpness: float = 0.8
    """focal_sam: weight of the sharpness term (lambda)."""
    gamma: float = 3.0
    """focal_sam: focusing exponent."""
    radius_scale: float = 1.0
    """cc_sam: factor on the characteristic radius."""
    flat_ratio: float = 1.0
    """cc_sam: weight of the perturbed loss, the clean one has the rest."""
    max_relative_radius: float | None = 0.05
    """cc_sam: bound on the perturbation's norm over the perturbed parameters'; None for none."""
    grad_norm: Literal["global", "per_leaf"] = "global"
    """cc_sam: one norm over all perturbed parameters (paper), or one a tensor (released code)."""
    class_weighting: Literal["sample", "class"] = "sample"
    """cc_sam: weigh classes by their images in the batch, or alike."""
    scope: Literal["all", "classifier"] = "all"
    """Parameters that are perturbed; cc_sam's papers and code perturb the classifier."""
    adaptive: bool = False
    """ASAM: radii relative to each weight's magnitude."""
    hold_statistics: bool = False
    """Batch norm normalises in all passes by the clean pass's statistics, as constants through
    which no gradient flows. Images then do not depend on each other, which makes imb_sam, the
    second stage of sse_sam and cc_sam on all parameters cheap. It is another network to train than
    the papers'."""

    many_above: int = 100
    """Classes with more training images are many-shot."""
    few_below: int = 20
    """Classes with fewer training images are few-shot; between the two they are medium-shot."""
    eval_epochs: int = 10
    """An evaluation and a checkpoint every so many epochs, and after the last."""

    def __post_init__(self):
        """Refuses numbers that no run can have.

        Raises:
            UsageError: one of them is out of range.
        """
        for name in ("epochs", "batch_size", "eval_epochs"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "momentum", "weight_decay"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("switch_at", self.switch_at, 0 <= self.switch_at <= 1, "between 0 and 1")
        for rho in self.rho_values:
            _check("rho_values", self.rho_values, 0 <= rho < float("inf"), "finite and at least 0")
        ascending = all(a < b for a, b in itertools.pairwise((-1, *self.rho_epochs)))
        _check("rho_epochs", self.rho_epochs, ascending, "ascending, from 0 on")
        _check("reweight_beta", self.reweight_beta, 0 <= self.reweight_beta < 1, "in [0, 1)")
        for name in ("focal_gamma", "max_margin", "tau", "scaling_gamma"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("scale", self.scale, self.scale > 0, "positive")
        _check(
            "rho_values",
            self.rho_values,
            len(self.rho_values) == len(self.rho_epochs),
            f"one radius for each of the {len(self.rho_epochs)} rho_epochs",
        )


def _check(name: str, value: object, holds: bool, need: str) -> None:
    if not holds:
        raise UsageError(f"{name} must be {need}, got {value}")
