"""Which recipes stand in which place of a paper's table."""

from typing import NamedTuple

from jaxlt.recipes.named.flattened import BASELINES, OPERATIONS


class TableLayout(NamedTuple):
    """A table of results: the cell of a row and a column is the recipe ROW_COLUMN, if there is one.

    Rows and columns have a label and a key. A row whose key ends in `@0` shows the first of a
    recipe's stages.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]

    @property
    def by_group(self) -> bool:
        """Whether one column makes room for the accuracies by group of classes."""
        return len(self.columns) == 1

    def cell(self, row: str, column: str) -> tuple[str, int | None]:
        """Returns the recipe of a cell, by its name, and the stage shown, None for the last."""
        row, _, stage = row.partition("@")
        return "_".join(filter(None, (row, column))), int(stage) if stage else None


_LABELS = {
    "sgd": "CE",
    "sgd_resnet34": "CE",
    "mixup": "CE + mixup",
    "class_balanced": "CE, class-balanced",
    "square_root": "CE, square-root",
    "progressive": "CE, progressive",
    "crt": "cRT",
    "lws": "LWS",
    "ncm": "NCM",
    "tau_norm": "tau-norm",
    "tau_norm_resnet50": "tau-norm, ResNet-50",
    "balanced_softmax": "Balanced softmax",
    "lade": "LADE",
    "ldam_drw": "LDAM-DRW",
    "la": "LA",
    "vs": "VS",
    "mislas": "MiSLAS",
    "gcl": "GCL",
    "sam": "SAM",
    "sam_resnet34": "SAM",
    "sam_la": "SAM + LA",
    "sam_ldam_drw": "LDAM-DRW + SAM",
    "vs_sam": "VS + SAM",
    "imb_sam": "ImbSAM",
    "imb_sam_la": "ImbSAM + LA",
    "sse_sam": "SSE-SAM",
    "sse_sam_la": "SSE-SAM + LA",
    "focal_sam": "Focal-SAM",
    "focal_sam_la": "Focal-SAM + LA",
    "cc_sam": "CC-SAM",
    "cc_sam_resnext50": "CC-SAM, ResNeXt-50",
    "cc_sam_released": "CC-SAM, released",
    "cc_sam@0": "CC-SAM, stage 1",
    "swa": "SWA",
    "sn": "SN",
    "gp": "GP",
    "mp_random": "MP, random",
    "mp_adversarial": "MP, adversarial",
}


def _rows(keys: str, **labels: str) -> tuple[tuple[str, str], ...]:
    """Returns rows by their keys, with labels of their own where the usual ones do not fit."""
    return tuple(({**_LABELS, **labels}[key], key) for key in keys.split())


_STANDIN_ROWS = _rows(
    "sgd mixup ldam_drw la vs crt tau_norm lws ncm mislas gcl sam sam_la imb_sam imb_sam_la "
    "sse_sam sse_sam_la focal_sam focal_sam_la cc_sam@0 cc_sam",
    cc_sam="CC-SAM, both stages",
)
_LARGE = "sgd tau_norm balanced_softmax lade mislas sam_ldam_drw gcl la focal_sam cc_sam"
_LARGE_ROWS = _rows(_LARGE, focal_sam="Focal-SAM + LA")
_KANG = "class_balanced square_root progressive ncm crt lws tau_norm_resnet50 cc_sam_resnext50"
_CIFAR = "sgd mixup ldam_drw crt mislas vs_sam gcl cc_sam_released cc_sam"
_CIFAR_COLUMNS = tuple(
    (f"CIFAR-{classes}, IF {factor}", f"cifar{classes}" + ("" if factor == 100 else f"_if{factor}"))
    for classes in (10, 100)
    for factor in (200, 100, 50)
)
_FASHION_ENCODERS = {
    "random encoder, AdaptFormer": "tiny",
    "random encoder, full": "tiny_full",
    "DINOv2-small, AdaptFormer": "dinov2",
}

TABLES: dict[str, TableLayout] = {
    "imagenet_lt": TableLayout(
        "CC-SAM's table 3: ImageNet-LT, and classifier-balancing's. ResNeXt-50 for CE, tau-norm, "
        "balanced softmax and LADE",
        (*_LARGE_ROWS, *_rows(_KANG)),
        (("ImageNet-LT", "imagenet_lt"),),
    ),
    "places_lt": TableLayout(
        "CC-SAM's table 3: Places-LT, ResNet-152 with weights of ImageNet",
        _rows("sgd tau_norm balanced_softmax lade mislas gcl cc_sam crt"),
        (("Places-LT", "places_lt"),),
    ),
    "inaturalist": TableLayout(
        "CC-SAM's table 3: iNaturalist 2018, ResNet-50",
        _LARGE_ROWS,
        (("iNaturalist 2018", "inaturalist"),),
    ),
    "cifar_lt": TableLayout(
        "CC-SAM's table 1: accuracy on CIFAR-LT, ResNet-32",
        _rows(_CIFAR, crt="CE + mixup + cRT"),
        _CIFAR_COLUMNS,
    ),
    "sse_sam": TableLayout(
        "SSE-SAM's comparison: CIFAR-100-LT, imbalance factor 100, ResNet-34",
        _rows("sgd_resnet34 sam_resnet34 imb_sam sse_sam"),
        (("CIFAR-100, IF 100", "cifar100"),),
    ),
    "flattening": TableLayout(
        "CC-SAM's figure 2: flattening operations by stage, CIFAR-100-LT, imbalance factor 100. "
        "The figure has one SWA and one MP, and M2m as a fifth baseline",
        (
            ("none", ""),
            *(
                (f"{_LABELS[operation]}.{'.'.join(stages)}", f"{operation}_{'_'.join(stages)}")
                for operation in OPERATIONS
                for stages in (("1",), ("2",), ("1", "2"))
            ),
        ),
        tuple((_LABELS[baseline], f"{baseline}_cifar100") for baseline in BASELINES),
    ),
    "fashion_lt": TableLayout(
        "Fashion-MNIST-LT: at most 1000 images a class, imbalance factor 100, look-alikes rare",
        _STANDIN_ROWS,
        (("Fashion-MNIST-LT", "fashion"),),
    ),
    "clip_fashion": TableLayout(
        "Fine-tuned image encoders on Fashion-MNIST-LT, logit-adjusted loss: random weights, 16 "
        "pixels, 20 epochs; DINOv2-small, 42 pixels, 4 epochs",
        tuple(
            (f"{encoder}: {name}", f"{method}_{key}")
            for encoder, key in _FASHION_ENCODERS.items()
            for name, method in _rows("sgd sam imb_sam sse_sam focal_sam cc_sam", sgd="SGD")
        ),
        (("Fashion-MNIST-LT", "fashion"),),
    ),
    "digits_lt": TableLayout(
        "Long-tailed digits, imbalance factor 20",
        _STANDIN_ROWS,
        (("digits", "digits"),),
    ),
}
