"""What the benchmark measures: the steps by name, and the batch that all of them take."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.network import Network
from jaxlt.recipes.optimizer import Constant, Optimizer
from jaxlt.recipes.stage import Stage

CaseName = Literal[
    "sgd",
    "sam",
    "imb_sam",
    "focal_sam",
    "sse_sam_stage1",
    "sse_sam_stage2",
    "cc_sam",
    "cc_sam_all",
]
CASES: tuple[CaseName, ...] = get_args(CaseName)

_TAIL_THRESHOLD = 100
_SSE_SAM = SSESAM(head_rho=0.1, tail_rho=0.1, tail_threshold=_TAIL_THRESHOLD)
_METHODS: dict[CaseName, Method] = {
    "sgd": SGD(),
    "sam": SAM(rho=0.1),
    "imb_sam": ImbSAM(rho=0.1, tail_threshold=_TAIL_THRESHOLD),
    "focal_sam": FocalSAM(rho=0.1, sharpness_weight=0.8, gamma=3.2),
    "sse_sam_stage1": _SSE_SAM.replace(switch_at=1),
    "sse_sam_stage2": _SSE_SAM.replace(switch_at=0),
    "cc_sam": CCSAM(flat_ratio=0.5, scope="classifier"),
    "cc_sam_all": CCSAM(flat_ratio=0.5, scope="all"),
}


def case_stage(case: CaseName, batch_size: int) -> Stage:
    """Returns the stage of a case's step: momentum SGD with weight decay behind the method."""
    optimizer = Optimizer(schedule=Constant())
    return Stage(method=_METHODS[case], batch_size=batch_size, optimizer=optimizer)


def long_tailed_counts(num_classes: int) -> tuple[int, ...]:
    """Returns 500 training images down to 5, of CIFAR-100-LT at imbalance factor 100."""
    return profile_counts("exponential", 100.0, num_classes, 500)


@dataclass(frozen=True)
class Problem:
    """The network and the batch whose step is measured.

    Attributes:
        network: the network.
        class_counts: (C,) training images of each class.
        images: (B, H, W, channels) float32, noise.
        labels: (B,) int32.
    """

    network: Network
    class_counts: tuple[int, ...]
    images: np.ndarray
    labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def stage(self, case: CaseName) -> Stage:
        """Returns the stage of a case's step."""
        return case_stage(case, len(self.labels))

    def count_tail(self) -> int:
        """Returns how many images of the batch belong to tail classes."""
        return int((np.array(self.class_counts)[self.labels] < _TAIL_THRESHOLD).sum())


def make_problem(
    network: Network,
    *,
    batch_size: int,
    num_classes: int,
    image_size: int,
    tail_share: float | None,
) -> Problem:
    """Draws the batch: noise for images, and labels from the long-tailed prior.

    Args:
        network: the network.
        batch_size: B.
        num_classes: C.
        image_size: side of the images, which have 3 channels.
        tail_share: share of the batch that belongs to tail classes, rounded to whole images;
            None draws every label from the prior.

    Raises:
        UsageError: a number is out of range.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_classes", num_classes, 2),
        ("image_size", image_size, 1),
    ):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    if tail_share is not None and not 0 <= tail_share <= 1:
        raise UsageError(f"tail_share must lie in [0, 1], got {tail_share}")
    counts = long_tailed_counts(num_classes)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, image_size, image_size, 3), dtype=np.float32)
    labels = _draw_labels(rng, np.array(counts), batch_size, tail_share)
    return Problem(network, counts, images, labels)


def _draw_labels(
    rng: np.random.Generator, counts: np.ndarray, batch_size: int, tail_share: float | None
) -> np.ndarray:
    if tail_share is None:
        return _draw(rng, counts, batch_size)
    num_tail = round(tail_share * batch_size)
    tail = counts < _TAIL_THRESHOLD
    parts = [_draw(rng, counts * tail, num_tail), _draw(rng, counts * ~tail, batch_size - num_tail)]
    return rng.permutation(np.concatenate(parts))


def _draw(rng: np.random.Generator, weights: np.ndarray, number: int) -> np.ndarray:
    return rng.choice(len(weights), number, p=weights / weights.sum()).astype(np.int32)
