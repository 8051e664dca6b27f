"""What the benchmark measures: the steps by name, and the batch that all of them take."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from experiments.recipe import Recipe
from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.models.adaptation.kinds import Kind

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
Precision = Literal["float32", "bfloat16"]
CASES: tuple[CaseName, ...] = get_args(CaseName)

_FIELDS: dict[CaseName, dict[str, Any]] = {
    "sgd": {"method": "sgd"},
    "sam": {"method": "sam", "rho": 0.1},
    "imb_sam": {"method": "imb_sam", "rho": 0.1},
    "focal_sam": {"method": "focal_sam", "rho": 0.1, "sharpness": 0.8, "gamma": 3.2},
    "sse_sam_stage1": {"method": "sse_sam", "head_rho": 0.1, "tail_rho": 0.1, "switch_at": 1},
    "sse_sam_stage2": {"method": "sse_sam", "head_rho": 0.1, "tail_rho": 0.1, "switch_at": 0},
    "cc_sam": {"method": "cc_sam", "flat_ratio": 0.5, "scope": "classifier"},
    "cc_sam_all": {"method": "cc_sam", "flat_ratio": 0.5, "scope": "all"},
}
_TAIL_THRESHOLD = 100


def case_recipe(case: CaseName, model: str, batch_size: int, **network: Any) -> Recipe:
    """Returns the recipe of a case's step: momentum SGD with weight decay behind the method.

    Args:
        case: which.
        model: name of the network.
        batch_size: images a step.
        **network: further fields of the recipe.
    """
    base = Recipe(
        model=model,
        batch_size=batch_size,
        **network,
        schedule="constant",
        tail_threshold=_TAIL_THRESHOLD,
    )
    return replace(base, **_FIELDS[case])


def long_tailed_counts(num_classes: int) -> tuple[int, ...]:
    """Returns 500 training images down to 5, of CIFAR-100-LT at imbalance factor 100."""
    return profile_counts("exponential", 100.0, num_classes, 500)


@dataclass(frozen=True)
class Problem:
    """The network and the batch whose step is measured.

    Attributes:
        model: name of the network, see `create_model`.
        precision: type of the network's computations.
        class_counts: (C,) training images of each class.
        images: (B, H, W, channels) float32, noise.
        labels: (B,) int32.
        remat: whether the network keeps less for its backward pass, see `Recipe`.
        adaptation: what of a vision tower is trained, see `Recipe`.
    """

    model: str
    precision: Precision
    class_counts: tuple[int, ...]
    images: np.ndarray
    labels: np.ndarray
    remat: bool = False
    adaptation: tuple[Kind, ...] = ("full",)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def recipe(self, case: CaseName) -> Recipe:
        """Returns the recipe of a case's step."""
        return case_recipe(
            case,
            self.model,
            len(self.labels),
            precision=self.precision,
            remat=self.remat,
            adaptation=self.adaptation,
        )

    def count_tail(self) -> int:
        """Returns how many images of the batch belong to tail classes."""
        return int((np.array(self.class_counts)[self.labels] < _TAIL_THRESHOLD).sum())


def make_problem(
    model: str,
    precision: Precision,
    *,
    batch_size: int,
    num_classes: int,
    image_size: int,
    tail_share: float | None,
    remat: bool = False,
    adaptation: tuple[Kind, ...] = ("full",),
) -> Problem:
    """Draws the batch: noise for images, and labels from the long-tailed prior.

    Args:
        model: name of the network.
        precision: type of the network's computations.
        batch_size: B.
        num_classes: C.
        image_size: side of the images, which have 3 channels.
        tail_share: share of the batch that belongs to tail classes, rounded to whole images;
            None draws every label from the prior.
        remat: see `Problem`.
        adaptation: likewise.

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
    return Problem(model, precision, counts, images, labels, remat, adaptation)


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
