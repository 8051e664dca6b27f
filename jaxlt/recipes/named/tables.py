"""Which recipes stand in which place of a paper's table."""

from typing import NamedTuple

from jaxlt.recipes.named.flattened import BASELINES, OPERATIONS

_CIFAR_COLUMNS = tuple(
    (f"CIFAR-{classes}, IF {factor}", f"cifar{classes}" + ("" if factor == 100 else f"_if{factor}"))
    for classes in (10, 100)
    for factor in (200, 100, 50)
)
_NAMES = {"crt": "cRT", "ldam_drw": "LDAM-DRW", "mislas": "MiSLAS", "gcl": "GCL"}
_OPERATION_NAMES = {
    "swa": "SWA",
    "sn": "SN",
    "gp": "GP",
    "mp_random": "MP, random",
    "mp_adversarial": "MP, adversarial",
}


class Layout(NamedTuple):
    """A table of results: the cell of a row and a column is the recipe ROW_COLUMN, if there is one.

    A row that ends in `@0` shows the first of a recipe's stages.

    Attributes:
        title: of the table.
        rows: label and key of each.
        columns: label and key of each.
        by_group: for one column, the accuracies of many-, medium- and few-shot classes and of all.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    by_group: bool = False

    def cell(self, row: str, column: str) -> tuple[str, int | None]:
        """Returns the recipe of a cell, by its name, and the stage shown, None for the last."""
        row, _, stage = row.partition("@")
        return "_".join(filter(None, (row, column))), int(stage) if stage else None


_STANDIN_ROWS = (
    ("CE", "sgd"),
    ("CE + mixup", "mixup"),
    ("LDAM-DRW", "ldam_drw"),
    ("LA", "la"),
    ("VS", "vs"),
    ("cRT", "crt"),
    ("tau-norm", "tau_norm"),
    ("LWS", "lws"),
    ("NCM", "ncm"),
    ("MiSLAS", "mislas"),
    ("GCL", "gcl"),
    ("SAM", "sam"),
    ("SAM + LA", "sam_la"),
    ("ImbSAM", "imb_sam"),
    ("ImbSAM + LA", "imb_sam_la"),
    ("SSE-SAM", "sse_sam"),
    ("SSE-SAM + LA", "sse_sam_la"),
    ("Focal-SAM", "focal_sam"),
    ("Focal-SAM + LA", "focal_sam_la"),
    ("CC-SAM, stage 1", "cc_sam@0"),
    ("CC-SAM, both stages", "cc_sam"),
)

_SAM_ROWS = (
    ("SGD", "sgd"),
    ("SAM", "sam"),
    ("ImbSAM", "imb_sam"),
    ("SSE-SAM", "sse_sam"),
    ("Focal-SAM", "focal_sam"),
    ("CC-SAM", "cc_sam"),
)
_FASHION_ENCODERS = {
    "random encoder, AdaptFormer": "tiny",
    "random encoder, full": "tiny_full",
    "DINOv2-small, AdaptFormer": "dinov2",
}

_LARGE_ROWS = (
    ("CE", "sgd"),
    ("tau-norm", "tau_norm"),
    ("Balanced softmax", "balanced_softmax"),
    ("LADE", "lade"),
    ("MiSLAS", "mislas"),
    ("LDAM-DRW + SAM", "sam_ldam_drw"),
    ("GCL", "gcl"),
    ("LA", "la"),
    ("Focal-SAM + LA", "focal_sam"),
    ("CC-SAM", "cc_sam"),
)
_KANG_ROWS = (
    ("CE, class-balanced", "class_balanced"),
    ("CE, square-root", "square_root"),
    ("CE, progressive", "progressive"),
    ("NCM", "ncm"),
    ("cRT", "crt"),
    ("LWS", "lws"),
    ("tau-norm, ResNet-50", "tau_norm_resnet50"),
    ("CC-SAM, ResNeXt-50", "cc_sam_resnext50"),
)
_NOT_ON_PLACES = ("sam_ldam_drw", "la", "focal_sam")

TABLES: dict[str, Layout] = {
    "imagenet_lt": Layout(
        "CC-SAM's table 3: ImageNet-LT, and classifier-balancing's. ResNeXt-50 for CE, tau-norm, "
        "balanced softmax and LADE",
        (*_LARGE_ROWS, *_KANG_ROWS),
        (("ImageNet-LT", "imagenet_lt"),),
        by_group=True,
    ),
    "places_lt": Layout(
        "CC-SAM's table 3: Places-LT, ResNet-152 with weights of ImageNet",
        tuple(row for row in (*_LARGE_ROWS, ("cRT", "crt")) if row[1] not in _NOT_ON_PLACES),
        (("Places-LT", "places_lt"),),
        by_group=True,
    ),
    "inaturalist": Layout(
        "CC-SAM's table 3: iNaturalist 2018, ResNet-50",
        _LARGE_ROWS,
        (("iNaturalist 2018", "inaturalist"),),
        by_group=True,
    ),
    "cifar_lt": Layout(
        "CC-SAM's table 1: accuracy on CIFAR-LT, ResNet-32",
        (
            ("CE", "sgd"),
            ("CE + mixup", "mixup"),
            ("LDAM-DRW", "ldam_drw"),
            ("CE + mixup + cRT", "crt"),
            ("MiSLAS", "mislas"),
            ("VS + SAM", "vs_sam"),
            ("GCL", "gcl"),
            ("CC-SAM, released", "cc_sam_released"),
            ("CC-SAM", "cc_sam"),
        ),
        _CIFAR_COLUMNS,
    ),
    "sse_sam": Layout(
        "SSE-SAM's comparison: CIFAR-100-LT, imbalance factor 100, ResNet-34",
        (
            ("CE", "sgd_resnet34"),
            ("SAM", "sam_resnet34"),
            ("ImbSAM", "imb_sam"),
            ("SSE-SAM", "sse_sam"),
        ),
        (("CIFAR-100, IF 100", "cifar100"),),
        by_group=True,
    ),
    "flattening": Layout(
        "CC-SAM's figure 2: flattening operations by stage, CIFAR-100-LT, imbalance factor 100. "
        "The figure has one SWA and one MP, and M2m as a fifth baseline",
        (
            ("none", ""),
            *(
                (f"{name}.{'.'.join(stages)}", f"{operation}_{'_'.join(stages)}")
                for operation, name in _OPERATION_NAMES.items()
                for stages in (("1",), ("2",), ("1", "2"))
            ),
        ),
        tuple((_NAMES[baseline], f"{baseline}_cifar100") for baseline in BASELINES),
    ),
    "fashion_lt": Layout(
        "Fashion-MNIST-LT: at most 1000 images a class, imbalance factor 100, look-alikes rare",
        _STANDIN_ROWS,
        (("Fashion-MNIST-LT", "fashion"),),
        by_group=True,
    ),
    "clip_fashion": Layout(
        "Fine-tuned image encoders on Fashion-MNIST-LT, logit-adjusted loss: random weights, 16 "
        "pixels, 20 epochs; DINOv2-small, 42 pixels, 4 epochs",
        tuple(
            (f"{encoder}: {name}", f"{method}_{key}")
            for encoder, key in _FASHION_ENCODERS.items()
            for name, method in _SAM_ROWS
        ),
        (("Fashion-MNIST-LT", "fashion"),),
        by_group=True,
    ),
    "digits_lt": Layout(
        "Long-tailed digits, imbalance factor 20",
        _STANDIN_ROWS,
        (("digits", "digits"),),
        by_group=True,
    ),
}
assert set(_OPERATION_NAMES) == set(OPERATIONS)
