"""Published results of the named recipes, test accuracy in percent."""

from typing import NamedTuple


class Published(NamedTuple):
    """What a source, a paper or a program's page, reports.

    Accuracies are over all classes, and over many-, medium- and few-shot ones as it defines them.
    """

    source: str
    accuracy: float | None = None
    many: float | None = None
    medium: float | None = None
    few: float | None = None


_CC_SAM_TABLE = "CC-SAM (CVPR 2023), table 1"
_COLUMNS = tuple(f"cifar{c}{factor}" for c in (10, 100) for factor in ("_if200", "", "_if50"))
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

# Over all classes, and over many-, medium- and few-shot ones.
_LARGE_TABLE = "CC-SAM (CVPR 2023), table 3"
_LARGE_ROWS = {
    "sgd_imagenet_lt": (44.4, 65.9, 37.5, 7.7),
    "tau_norm_resnet50_imagenet_lt": (46.7, 56.6, 44.2, 27.4),
    "balanced_softmax_imagenet_lt": (52.3, 64.1, 48.2, 33.4),
    "lade_imagenet_lt": (52.3, 64.4, 47.7, 34.3),
    "mislas_imagenet_lt": (52.7,),
    "sam_ldam_drw_imagenet_lt": (53.1, 62.0, 52.1, 34.8),
    "gcl_imagenet_lt": (54.9,),
    "cc_sam_imagenet_lt": (52.4, 61.4, 49.5, 37.1),
    "cc_sam_resnext50_imagenet_lt": (55.4, 63.1, 53.4, 41.1),
    "sgd_places_lt": (30.2, 45.7, 27.3, 8.2),
    "tau_norm_places_lt": (37.9, 37.8, 40.7, 31.8),
    "balanced_softmax_places_lt": (38.6, 42.0, 39.3, 30.5),
    "lade_places_lt": (38.8, 42.8, 39.0, 31.2),
    "mislas_places_lt": (40.2,),
    "gcl_places_lt": (40.6,),
    "cc_sam_places_lt": (40.6, 41.2, 42.1, 36.4),
    "sgd_inaturalist": (61.7, 72.2, 63.0, 57.2),
    "tau_norm_inaturalist": (65.6, 65.6, 65.3, 65.9),
    "balanced_softmax_inaturalist": (70.6,),
    "lade_inaturalist": (70.0,),
    "mislas_inaturalist": (71.6,),
    "sam_ldam_drw_inaturalist": (70.1, 64.1, 70.5, 71.2),
    "gcl_inaturalist": (72.0,),
    "cc_sam_inaturalist": (70.9, 65.4, 70.9, 72.2),
}
_KANG_TABLE = "README of facebookresearch/classifier-balancing"
_KANG_ROWS = {
    "class_balanced_imagenet_lt": (45.1, 61.8, 40.1, 15.5),
    "square_root_imagenet_lt": (46.8, 64.3, 41.2, 17.0),
    "progressive_imagenet_lt": (47.2, 61.9, 43.2, 19.4),
    "ncm_imagenet_lt": (47.3, 56.6, 45.3, 28.1),
    "crt_imagenet_lt": (49.6, 61.8, 46.2, 27.4),
    "tau_norm_imagenet_lt": (49.4, 59.1, 46.9, 30.7),
    "lws_imagenet_lt": (49.9, 60.2, 47.2, 30.3),
}

PUBLISHED: dict[str, Published] = {
    **{name: Published(_LARGE_TABLE, *row) for name, row in _LARGE_ROWS.items()},
    **{name: Published(_KANG_TABLE, *row) for name, row in _KANG_ROWS.items()},
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
