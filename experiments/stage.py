"""One stage of training, as data: what is trained, on which images, by which loss and method."""

import dataclasses
import itertools
import math
from typing import Literal, Self

from jaxlt import UsageError
from jaxlt.data import Policy, SamplerName, Shift

Method = Literal[
    "sgd",
    "sam",
    "imb_sam",
    "sse_sam",
    "focal_sam",
    "cc_sam",
    "gradient_norm_penalty",
    "random_perturbation",
]
Loss = Literal[
    "cross_entropy",
    "focal",
    "ldam",
    "logit_adjusted",
    "balanced_softmax",
    "vector_scaling",
    "gcl",
    "label_aware_smoothing",
    "lade",
]
Schedule = Literal[
    "constant", "cosine", "cosine_stepped_first", "warmup_cosine", "ldam", "tenths", "cc_sam"
]
Trainable = Literal["all", "last_block", "classifier", "scale"]

_NOT_NEGATIVE_IN_LOSSES = (
    *("focal_gamma", "max_margin", "tau", "scaling_gamma", "noise_scale"),
    *("gcl_margin", "gcl_focusing", "lade_weight", "adversary_radius"),
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of a run. The defaults are the field's usual values for CIFAR-LT."""

    kind: Literal["train", "tau_norm", "ncm"] = "train"
    """train takes steps. The others compute a classifier from the one before, without steps:
    tau_norm divides each class's weights by their norm to the power of norm_tau and drops the
    bias; ncm takes the means of the classes' normalised features."""
    norm_tau: float = 0.5
    """tau_norm: exponent, 0 to leave the weights alone and 1 for unit norms."""

    trainable: Trainable = "all"
    """Parameters that are trained. last_block: a ResNet's last block and the classifier, on
    batch_norm last_block or running (MiSLAS and GCL on Places-LT). scale: a factor on each class's
    logit (LWS), alone."""
    reset_classifier: bool = False
    """Begin with a new classifier, as cRT does."""
    learn_scale: bool = False
    """Give each class's logit a factor that is learned (LWS), 1 at first."""
    classifier_lr_factor: float = 1.0
    """Factor on the learning rate of the classifier's kernel and bias."""
    batch_norm: Literal["batch", "last_block", "running"] = "batch"
    """batch: normalise by the batch's statistics and go on averaging them, even where the network
    is frozen (cRT, shifted batch norm). running: by the averages, which then stay. last_block: by
    the batch's in the last block of an ImageNet ResNet, by the averages below."""

    sampler: SamplerName = "instance"
    """How often each class is seen: instance (as often as it has images), class_balanced,
    square_root, progressive (from the one to the other over the stage) and effective_number draw
    with replacement; class_aware walks through all classes, then through each one's images."""
    consecutive: int = 1
    """class_aware: images of one class drawn one after the other."""
    sampling_beta: float = 0.9999
    """effective_number: beta."""
    augmentation: Shift = "crop_flip"
    """crop_flip: random crop after padding by 4 pixels, and random horizontal flip.
    resized_crop_flip: a part of the image file, 8% to 100% of its area, in place of the crop."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation, in parts of their own; 0 for none."""
    policy: Policy = "none"
    """Further augmentation: the CIFAR-10 policy of AutoAugment, or RandAugment."""
    randaugment_ops: int = 2
    """randaugment: operations an image."""
    randaugment_magnitude: int = 9
    """randaugment: their strength, 0 to 30."""
    cutout: int = 0
    """Side in pixels of the square that Cutout blackens; 0 for none."""
    mixup: float = 0.0
    """alpha of mixup's Beta(alpha, alpha), drawn once a batch; 0 for none."""

    loss: Loss = "cross_entropy"
    """Per-example loss."""
    focal_gamma: float = 2.0
    """focal: exponent."""
    max_margin: float = 0.5
    """ldam: margin of the rarest class."""
    scale: float = 30.0
    """ldam, gcl: factor on the cosines."""
    tau: float = 1.0
    """logit_adjusted, vector_scaling: strength of the additive adjustment."""
    scaling_gamma: float = 0.3
    """vector_scaling: exponent of the multiplicative adjustment."""
    noise_scale: float = 0.5
    """gcl: amplitude of the noise on the rarest class's cosine."""
    gcl_margin: float = 0.0
    """gcl: margin on the cosine of the label."""
    gcl_focusing: float = 0.0
    """gcl: focal exponent, 1 in its second stage."""
    smoothing_head: float = 0.3
    """label_aware_smoothing: smoothing of the largest class."""
    smoothing_tail: float = 0.0
    """label_aware_smoothing: of the smallest."""
    smoothing_shape: Literal["concave", "linear", "convex"] = "concave"
    """label_aware_smoothing: how it grows with the number of images."""
    lade_weight: float = 0.1
    """lade: weight of the regulariser."""
    reweight_epoch: int | None = None
    """First zero-based epoch with class-balanced weights (DRW), 0 for all; None for never."""
    reweight_beta: float = 0.9999
    """Class-balanced weights: beta of the effective number."""
    reweight_mean: Literal["batch", "weights"] = "batch"
    """What re-weighted losses are divided by: the batch's size, or the sum of its weights."""

    adversary: Literal["none", "paper", "released"] = "none"
    """CC-SAM's second stage on a frozen network: the classifier also learns from features moved
    against it, one direction an image (paper), or one a class with weights by rarity (released).
    The share of their loss grows linearly over the epochs."""
    adversary_radius: float = 1.0
    """adversary: how far a feature, or all of a class in the batch, is moved."""
    adversary_limit: float = 1.0
    """adversary: largest share of the moved features' loss."""
    adversary_divisor: float = 2.0
    """released adversary: divisor of the weights log(N_max / N_c + 0.01)."""

    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, over all devices."""
    lr: float = 0.1
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate by epoch: ldam and tenths warm up for 5 epochs and fall after 80% and 90% of
    all to 0.01 and 0.0001, or to 0.1 and 0.01; cosine_stepped_first ends with an epoch at 0;
    warmup_cosine rises from one half over the first sixteenth."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: float = 2e-4
    """Added to the final gradient as weight_decay * w, for all trained parameters."""
    swa_epoch: int | None = None
    """First zero-based epoch of stochastic weight averaging: the stage ends with the mean of the
    weights after each epoch from then on, and batch norm's statistics of it. None for none."""
    spectral_norm: Literal["none", "classifier", "all"] = "none"
    """Kernels that are divided by their spectral norm."""

    method: Method = "sgd"
    """How the gradient is taken."""
    rho: float = 0.05
    """sam, imb_sam, focal_sam, gradient_norm_penalty, random_perturbation: radius."""
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
    direction: Literal["gradient", "random"] = "gradient"
    """cc_sam: perturb along each class's gradient, or along Gaussian noise."""
    magnitude: Literal["characteristic", "constant"] = "characteristic"
    """cc_sam: the paper's radius, or radius_scale for all classes."""
    penalty: float = 0.01
    """gradient_norm_penalty: weight of the gradient's norm."""
    scope: Literal["all", "classifier"] = "all"
    """Parameters that are perturbed; cc_sam's papers and code perturb the classifier."""
    adaptive: bool = False
    """ASAM: radii relative to each weight's magnitude."""
    perturbation_shards: int = 1
    """m-sharpness: into how many shards each batch is divided, each perturbed along its own
    gradient, as on the accelerators of SAM's authors; batch norm and mixup are a shard's own too.
    As many devices must be there. 1 perturbs along the gradient of the whole batch, on any number
    of devices."""
    hold_statistics: bool = False
    """Batch norm normalises in all passes by the clean pass's statistics, as constants through
    which no gradient flows. Images then do not depend on each other, which makes imb_sam, the
    second stage of sse_sam and cc_sam on all parameters cheap. It is another network to train than
    the papers'."""

    def num_steps(self, num_images: int, epochs: float | None = None) -> int:
        """Steps that so many epochs take (all of the stage's by default), rounded up."""
        return math.ceil((self.epochs if epochs is None else epochs) * num_images / self.batch_size)

    def scaled(self, factor: float) -> Self:
        """Returns the stage with everything given in epochs, times a factor."""

        def epoch(number: int | None) -> int | None:
            return None if number is None else math.floor(number * factor)

        def later(numbers: tuple[int, ...]) -> tuple[int, ...]:
            scaled: list[int] = []
            for number in numbers:
                scaled.append(max(math.floor(number * factor), *(x + 1 for x in scaled[-1:]), 0))
            return tuple(scaled)

        epochs = max(1, round(self.epochs * factor))
        swa_epoch = epoch(self.swa_epoch)
        return dataclasses.replace(
            self,
            epochs=epochs,
            reweight_epoch=epoch(self.reweight_epoch),
            swa_epoch=None if swa_epoch is None else min(swa_epoch, epochs - 1),
            rho_epochs=later(self.rho_epochs),
        )

    def __post_init__(self):
        """Refuses numbers that no run can have.

        Raises:
            UsageError: one of them is out of range, or two do not go together.
        """
        for name in ("epochs", "batch_size"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "momentum", "weight_decay", "classifier_lr_factor", "mixup", "norm_tau"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        shards = self.perturbation_shards
        divides = shards >= 1 and self.batch_size % shards == 0
        check("perturbation_shards", shards, divides, f"a divisor of batch_size {self.batch_size}")
        check("switch_at", self.switch_at, 0 <= self.switch_at <= 1, "between 0 and 1")
        for rho in self.rho_values:
            check("rho_values", self.rho_values, 0 <= rho < float("inf"), "finite and at least 0")
        ascending = all(a < b for a, b in itertools.pairwise((-1, *self.rho_epochs)))
        check("rho_epochs", self.rho_epochs, ascending, "ascending, from 0 on")
        check(
            "rho_values",
            self.rho_values,
            len(self.rho_values) == len(self.rho_epochs),
            f"one radius for each of the {len(self.rho_epochs)} rho_epochs",
        )
        self._check_loss()
        self._check_together()

    def _check_loss(self) -> None:
        check("reweight_beta", self.reweight_beta, 0 <= self.reweight_beta < 1, "in [0, 1)")
        for name in _NOT_NEGATIVE_IN_LOSSES:
            check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("scale", "adversary_divisor"):
            check(name, getattr(self, name), getattr(self, name) > 0, "positive")
        for name in ("smoothing_head", "smoothing_tail", "adversary_limit"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")

    def _check_together(self) -> None:
        adversary, frozen = self.adversary != "none", self.trainable != "all"
        swa = self.swa_epoch is None or 0 <= self.swa_epoch < self.epochs
        steps, idle = self.kind == "train", "none in a stage without steps"
        batch, block = self.batch_norm == "batch", self.trainable == "last_block"
        for name, holds, need in (
            (
                "trainable",
                not adversary or self.trainable == "classifier",
                "classifier with an adversary",
            ),
            ("mixup", not (adversary and self.mixup), "0 with an adversary"),
            ("learn_scale", not (adversary and self.learn_scale), "off with an adversary"),
            (
                "learn_scale",
                self.learn_scale or self.trainable != "scale",
                "on where the scale is trained",
            ),
            ("batch_norm", batch or not self.hold_statistics, "batch to hold_statistics"),
            ("batch_norm", not (batch and block), "last_block or running to train last_block"),
            ("trainable", not (self.hold_statistics and frozen), "all to hold_statistics"),
            ("swa_epoch", swa, f"in 0..{self.epochs - 1}"),
            ("swa_epoch", steps or self.swa_epoch is None, idle),
            ("spectral_norm", steps or self.spectral_norm == "none", idle),
        ):
            check(name, getattr(self, name), holds, need)


def check(name: str, value: object, holds: bool, need: str) -> None:
    """Raises UsageError, saying what a field must be, unless the condition holds."""
    if not holds:
        raise UsageError(f"{name} must be {need}, got {value}")
