"""What the benchmark measures: the steps by name, and the batch that all of them take."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import numpy as np

from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.network import Network
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.schedule import Constant
from jaxlt.recipes.stage import Stage

CaseName = Literal[
    "sgd", "sam", "imb_sam", "focal_sam", "sse_sam_stage1", "sse_sam_stage2", "cc_sam", "cc_sam_all"
]
CASES: tuple[CaseName, ...] = get_args(CaseName)

_TAIL_THRESHOLD = 100
_SSE_SAM = SSESAM(head_rho=0.1, tail_rho=0.1, tail_threshold=_TAIL_THRESHOLD)
_LABELLED: dict[CaseName, tuple[str, Method]] = {
    "sgd": ("SGD", SGD()),
    "sam": ("SAM", SAM(rho=0.1)),
    "imb_sam": ("ImbSAM", ImbSAM(rho=0.1, tail_threshold=_TAIL_THRESHOLD)),
    "focal_sam": ("Focal-SAM", FocalSAM(rho=0.1, sharpness_weight=0.8, gamma=3.2)),
    "sse_sam_stage1": ("SSE-SAM, stage 1", _SSE_SAM.replace(switch_at=1)),
    "sse_sam_stage2": ("SSE-SAM, stage 2", _SSE_SAM.replace(switch_at=0)),
    "cc_sam": ("CC-SAM, classifier", CCSAM(flat_ratio=0.5, scope="classifier")),
    "cc_sam_all": ("CC-SAM, all parameters", CCSAM(flat_ratio=0.5, scope="all")),
}
LABELS = {case: label for case, (label, _) in _LABELLED.items()}
"""The names of the cases in tables and pictures."""


def has_ascent_share(case: CaseName) -> bool:
    """Tells whether a part of the batch may decide the directions of a case's perturbations."""
    return hasattr(_LABELLED[case][1], "ascent_share")


def long_tailed_counts(num_classes: int) -> tuple[int, ...]:
    """Returns 500 training images down to 5, of CIFAR-100-LT at imbalance factor 100."""
    return profile_counts("exponential", 100.0, num_classes, 500)


@dataclass(frozen=True)
class Problem:
    """The network and the batch whose step is measured.

    `images` are (B, H, W, channels) float32, noise, or their shape where no step is run; `labels`
    are (B,) int32. The last two are options of the methods that have them, which make a step
    cheaper.
    """

    network: Network
    class_counts: tuple[int, ...]
    images: np.ndarray | jax.ShapeDtypeStruct
    labels: np.ndarray
    every: int = 1
    ascent_share: float = 1.0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def stage(self, case: CaseName) -> Stage:
        """Returns the stage of a case's step: momentum SGD with weight decay behind the method."""
        _, method = _LABELLED[case]
        if case != "sgd":
            method = method.replace(every=self.every)
        if has_ascent_share(case):
            method = method.replace(ascent_share=self.ascent_share)
        optimizer = Optimizer(schedule=Constant())
        return Stage(method=method, batch_size=len(self.labels), optimizer=optimizer)

    def count_tail(self) -> int:
        """Returns how many images of the batch belong to tail classes."""
        return int((np.array(self.class_counts)[self.labels] < _TAIL_THRESHOLD).sum())


def make_problem(
    network: Network,
    *,
    batch_size: int,
    num_classes: int,
    image_size: int,
    tail_share: float | None = None,
) -> Problem:
    """Draws the batch: noise for images, and labels from the long-tailed prior.

    `tail_share` of the batch belongs to tail classes, rounded to whole images; without it every
    label is drawn from the prior.
    """
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2, got {num_classes}")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, image_size, image_size, 3), dtype=np.float32)
    class_counts = long_tailed_counts(num_classes)

    def draw(number: int, of_classes: np.ndarray | bool = True) -> np.ndarray:
        weights = np.array(class_counts) * of_classes
        return rng.choice(num_classes, number, p=weights / weights.sum()).astype(np.int32)

    if tail_share is None:
        return Problem(network, class_counts, images, draw(batch_size))
    num_tail = round(tail_share * batch_size)
    is_tail = np.array(class_counts) < _TAIL_THRESHOLD
    labels = np.concatenate([draw(num_tail, is_tail), draw(batch_size - num_tail, ~is_tail)])
    return Problem(network, class_counts, images, rng.permutation(labels))
