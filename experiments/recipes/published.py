"""Published results of the named recipes, test accuracy in percent."""

from typing import NamedTuple


class Published(NamedTuple):
    """What a paper or a program's page reports.

    Attributes:
        source: where.
        accuracy: over all classes.
        many: over many-shot classes, as the source defines them; likewise the other two.
        medium: over medium-shot classes.
        few: over few-shot classes.
    """

    source: str
    accuracy: float | None = None
    many: float | None = None
    medium: float | None = None
    few: float | None = None


_CC_SAM_TABLE = "CC-SAM (CVPR 2023), table 1"
_COLUMNS = (
    "cifar10_if200",
    "cifar10",
    "cifar10_if50",
    "cifar100_if200",
    "cifar100",
    "cifar100_if50",
)
_ROWS = {
    "sgd": (65.68, 70.70, 74.81, 34.84, 38.43, 43.90),
    "mixup": (65.84, 72.96, 79.48, 35.84, 40.01, 45.16),
    "ldam_drw": (73.52, 77.03, 81.03, 38.91, 42.04, 47.62),
    "crt": (73.06, 79.15, 84.21, 41.73, 45.12, 50.86),
    "mislas": (77.31, 82.06, 85.16, 42.33, 47.50, 52.62),
    "vs_sam": (None, 82.40, None, None, 46.60, None),
    "gcl": (79.03, 82.68, 85.46, 44.88, 48.71, 53.55),
    "cc_sam": (80.94, 83.92, 86.22, 45.66, 50.83, 53.91),
}
_ROWS["cc_sam_released"] = _ROWS["cc_sam"]

_SSE_TABLE = "README of Zemdalk/SSE-SAM, flips at test time"
_SADDLE_TABLE = "README of val-iisc/Saddle-LongTail"
_MISLAS_TABLE = "README of dvlab-research/MiSLAS"
_BALMS_TABLE = "README of jiawei-ren/BalancedMetaSoftmax"

PUBLISHED: dict[str, Published] = {
    **{
        f"{row}_{column}": Published(_CC_SAM_TABLE, accuracy)
        for row, accuracies in _ROWS.items()
        for column, accuracy in zip(_COLUMNS, accuracies, strict=True)
        if accuracy is not None
    },
    "mixup_cifar10_if10": Published(_MISLAS_TABLE, 87.6),
    "mixup_cifar100_if10": Published(_MISLAS_TABLE, 59.1),
    "mislas_cifar10_if10": Published(_MISLAS_TABLE, 90.0),
    "mislas_cifar100_if10": Published(_MISLAS_TABLE, 63.2),
    "sam_drw_cifar10": Published(_SADDLE_TABLE, 80.6),
    "sam_drw_cifar100": Published(_SADDLE_TABLE, 44.6),
    "sam_ldam_drw_cifar10": Published(_SADDLE_TABLE, 81.9),
    "sam_ldam_drw_cifar100": Published(_SADDLE_TABLE, 45.4),
    "sgd_resnet34_cifar100": Published(_SSE_TABLE, 44.6, 74.3, 43.1, 11.6),
    "sam_resnet34_cifar100": Published(_SSE_TABLE, 46.2, 75.3, 45.6, 12.9),
    "imb_sam_cifar100": Published(_SSE_TABLE, 47.9, 72.3, 50.4, 16.6),
    "sse_sam_cifar100": Published(_SSE_TABLE, 49.3, 71.7, 54.5, 17.1),
    "balms_softmax_cifar10_if200": Published(_BALMS_TABLE, 74.0),
    "balms_softmax_cifar100_if200": Published(_BALMS_TABLE, 41.2),
    "balanced_softmax_cifar10_if200": Published(_BALMS_TABLE, 79.8),
    "balanced_softmax_cifar100_if200": Published(_BALMS_TABLE, 46.7),
    "balanced_softmax_decoupled_cifar10_if200": Published(_BALMS_TABLE, 81.8),
    "balanced_softmax_decoupled_cifar100_if200": Published(_BALMS_TABLE, 47.2),
}
