"""Recipes of ImageNet-LT, Places-LT and iNaturalist 2018, each with its source.

Names end in the benchmark. The lists of images are OLTR's and, for iNaturalist, the competition's;
`--dataset` says where they and the images are.
"""

from dataclasses import replace
from typing import Any

from experiments.recipe import Recipe
from experiments.recipes.cifar import CC_SAM, CC_SAM_STAGE, GCL_STAGE
from experiments.stage import Stage

_IMAGES: dict[str, Any] = {
    "profile": "native",
    "image_size": 224,
    "resize": "centre_crop",
    "augmentation": "resized_crop_flip",
    "color_jitter": 0.4,
    "normalization": "imagenet",
}
_STAGE_IMAGES: dict[str, Any] = {"augmentation": "resized_crop_flip", "color_jitter": 0.4}
_LISTS = "list:data/{0},data/{1}_train.txt,data/{1}_val.txt,data/{1}_test.txt"
IMAGENET = Recipe(**_IMAGES, dataset=_LISTS.format("imagenet", "ImageNet_LT"), model="resnet50")
# The competition's validation images are the test images of all papers.
INATURALIST = replace(
    IMAGENET,
    dataset="list:data/inaturalist2018,data/iNaturalist18_train.txt,data/iNaturalist18_val.txt",
    normalization="inaturalist2018",
)
PLACES = Recipe(
    **_IMAGES,
    dataset=_LISTS.format("places365", "Places_LT"),
    model="resnet152",
    init_weights="data/resnet152.pth",
)

_KANG_SOURCE = "facebookresearch/classifier-balancing (ICLR 2020)"
_KANG: dict[str, Any] = {
    "epochs": 90,
    "batch_size": 512,
    "lr": 0.2,
    "schedule": "cosine_stepped_first",
    "weight_decay": 5e-4,
}
_KANG_STAGE = Stage(
    **{**_KANG, **_STAGE_IMAGES, "epochs": 10},
    trainable="classifier",
    sampler="class_aware",
    consecutive=4,
)
_TAU_NORM = Stage(kind="tau_norm", norm_tau=0.5)

# Saddle-LongTail and MiSLAS number the classes by size and cut them into groups by number.
_NUMBERED: dict[str, Any] = {"relabel": "by_size", "few_below": 21}

_SADDLE_SOURCE = "val-iisc/Saddle-LongTail (NeurIPS 2022)"
# A radius of 0.05 in the first 5 epochs, 0.1 up to the 60th, then 0.5.
_SADDLE: dict[str, Any] = {
    **_NUMBERED,
    "epochs": 90,
    "batch_size": 256,
    "classifier": "cosine",
    "loss": "ldam",
    "max_margin": 0.3,
    "reweight_epoch": 60,
    "reweight_mean": "weights",
    "method": "sam",
    "rho": 0.05,
    "rho_epochs": (5, 60),
    "rho_values": (0.1, 0.5),
}

_MISLAS_SOURCE = "dvlab-research/MiSLAS (CVPR 2021)"
_MISLAS: dict[str, Any] = {**_NUMBERED, "batch_size": 256, "weight_decay": 5e-4, "mixup": 0.2}
_MISLAS_STAGE = replace(
    _KANG_STAGE,
    loss="label_aware_smoothing",
    learn_scale=True,
    classifier_lr_factor=0.05,
    batch_size=256,
    lr=0.1,
    schedule="cosine",
)

_GCL_SOURCE = (
    "Keke921/GCLLoss (CVPR 2022) on Places-LT, whose learning rate falls after epochs 60 and 80, "
    "not 72 and 81"
)
_GCL: dict[str, Any] = {
    "epochs": 90,
    "batch_size": 512,
    "classifier": "cosine",
    "loss": "gcl",
    "lr": 0.2,
    "schedule": "tenths",
    "weight_decay": 5e-4,
    "mixup": 0.2,
    "noise_scale": 1.0,
}
_GCL_STAGE = replace(
    GCL_STAGE,
    **_STAGE_IMAGES,
    batch_size=512,
    scale=15.0,
    noise_scale=1.0,
    weight_decay=5e-4,
)

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025)"
_LOGIT_ADJUSTED: dict[str, Any] = {"loss": "logit_adjusted", "schedule": "cosine"}

_CC_SAM_SOURCE = (
    "CC-SAM (CVPR 2023), equations 7-14 and the batch size; all else, which is not published, as "
    "its code has it for CIFAR, and the bound on the radius ours"
)
# The fields of CIFAR's recipe that are not about its images or its network.
_CC_SAM: dict[str, Any] = {
    name: getattr(CC_SAM, name)
    for name in ("method", "scope", "schedule", "mixup", "epochs", "lr", "weight_decay")
}
# OLTR's groups of classes: 100 images are many, 20 are few. With the bound of 0.05 that serves on
# ten classes a network of 200 learned no more than how frequent they are.
_CC_SAM |= {"many_above": 99, "few_below": 21, "max_relative_radius": 0.003}
_CC_SAM_STAGE = replace(CC_SAM_STAGE, **_STAGE_IMAGES)

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(name: str, recipe: Recipe, source: str, **fields: Any) -> None:
    RECIPES[name] = replace(recipe, **fields)
    SOURCES[name] = source


def _add_imagenet() -> None:
    resnext = replace(IMAGENET, model="resnext50_32x4d", **_KANG)
    after_kang = f"{_KANG_SOURCE}, another loss"
    _add("sgd_imagenet_lt", resnext, _KANG_SOURCE)
    for sampler in ("class_balanced", "square_root", "progressive"):
        _add(f"{sampler}_imagenet_lt", resnext, _KANG_SOURCE, sampler=sampler)
    _add("ncm_imagenet_lt", resnext, _KANG_SOURCE, then=(Stage(kind="ncm"),))
    crt = replace(_KANG_STAGE, reset_classifier=True)
    _add("crt_imagenet_lt", resnext, _KANG_SOURCE, then=(crt,))
    lws = replace(_KANG_STAGE, trainable="scale", learn_scale=True, epochs=5)
    _add("lws_imagenet_lt", resnext, _KANG_SOURCE, then=(lws,))
    _add("tau_norm_imagenet_lt", resnext, f"{_KANG_SOURCE}; tau is not tuned", then=(_TAU_NORM,))
    _add(
        "tau_norm_resnet50_imagenet_lt",
        replace(resnext, model="resnet50"),
        f"{_KANG_SOURCE}; tau is not tuned",
        then=(_TAU_NORM,),
    )
    for loss in ("balanced_softmax", "lade"):
        _add(f"{loss}_imagenet_lt", resnext, after_kang, loss=loss)
    _add("sam_ldam_drw_imagenet_lt", IMAGENET, _SADDLE_SOURCE, **_SADDLE, lr=0.2)
    _add(
        "mislas_imagenet_lt",
        IMAGENET,
        _MISLAS_SOURCE,
        **_MISLAS,
        epochs=180,
        then=(_MISLAS_STAGE,),
    )
    _add("gcl_imagenet_lt", IMAGENET, _GCL_SOURCE, **_GCL, then=(_GCL_STAGE,))
    focal: dict[str, Any] = {**_LOGIT_ADJUSTED, "batch_size": 256, "weight_decay": 5e-4}
    _add("la_imagenet_lt", IMAGENET, f"{_FOCAL_SOURCE}, without perturbation", **focal)
    _add(
        "focal_sam_imagenet_lt",
        IMAGENET,
        _FOCAL_SOURCE,
        **focal,
        method="focal_sam",
        rho=0.1,
        rho_epochs=(159,),
        rho_values=(0.2,),
        gamma=0.8,
        sharpness=0.8,
    )
    stage = replace(_CC_SAM_STAGE, batch_size=256)
    for name, model in (("cc_sam", "resnet50"), ("cc_sam_resnext50", "resnext50_32x4d")):
        _add(
            f"{name}_imagenet_lt",
            replace(IMAGENET, model=model, batch_size=256),
            _CC_SAM_SOURCE,
            **_CC_SAM,
            then=(stage,),
        )


def _add_inaturalist() -> None:
    # Without colour jitter in all but MiSLAS's and Saddle's code.
    plain = replace(INATURALIST, color_jitter=0.0)
    kang = replace(plain, **{**_KANG, "weight_decay": 1e-4})
    _add("sgd_inaturalist", kang, _KANG_SOURCE)
    _add("tau_norm_inaturalist", kang, f"{_KANG_SOURCE}; tau is not tuned", then=(_TAU_NORM,))
    for loss in ("balanced_softmax", "lade"):
        _add(f"{loss}_inaturalist", kang, f"{_KANG_SOURCE}, another loss", loss=loss)
    _add(
        "sam_ldam_drw_inaturalist",
        INATURALIST,
        _SADDLE_SOURCE,
        **_SADDLE,
        lr=0.1,
        weight_decay=1e-4,
    )
    _add(
        "mislas_inaturalist",
        INATURALIST,
        _MISLAS_SOURCE,
        **{**_MISLAS, "weight_decay": 1e-4},
        epochs=200,
        then=(replace(_MISLAS_STAGE, weight_decay=1e-4),),
    )
    _add(
        "gcl_inaturalist",
        plain,
        _GCL_SOURCE,
        **_GCL,
        then=(replace(_GCL_STAGE, color_jitter=0.0),),
    )
    focal: dict[str, Any] = {**_LOGIT_ADJUSTED, "batch_size": 512, "lr": 0.2, "weight_decay": 2e-4}
    _add("la_inaturalist", plain, f"{_FOCAL_SOURCE}, without perturbation", **focal)
    _add(
        "focal_sam_inaturalist",
        plain,
        _FOCAL_SOURCE,
        **focal,
        method="focal_sam",
        rho=0.2,
        gamma=2.0,
        sharpness=1.1,
    )
    _add(
        "cc_sam_inaturalist",
        plain,
        _CC_SAM_SOURCE,
        **_CC_SAM,
        batch_size=512,
        then=(replace(_CC_SAM_STAGE, batch_size=512, color_jitter=0.0),),
    )


def _add_places() -> None:
    # Only a new last block and the classifier are trained (MiSLAS, GCL).
    places = replace(
        PLACES,
        trainable="last_block",
        batch_norm="last_block",
        init_last_block=False,
        epochs=90,
        batch_size=256,
        weight_decay=5e-4,
    )
    plain = f"{_MISLAS_SOURCE} on Places-LT, without mixup and its second stage"
    _add("sgd_places_lt", places, plain)
    _add("tau_norm_places_lt", places, f"{plain}; tau is not tuned", then=(_TAU_NORM,))
    for loss in ("balanced_softmax", "lade"):
        _add(f"{loss}_places_lt", places, f"{plain}, another loss", loss=loss)
    _add(
        "crt_places_lt",
        places,
        f"{_KANG_SOURCE} after {plain}",
        then=(
            replace(
                _KANG_STAGE,
                reset_classifier=True,
                batch_norm="last_block",
                batch_size=256,
                lr=0.1,
            ),
        ),
    )
    smoothed = replace(
        _MISLAS_STAGE, batch_norm="last_block", smoothing_head=0.4, smoothing_tail=0.1
    )
    _add("mislas_places_lt", places, _MISLAS_SOURCE, **_MISLAS, then=(smoothed,))
    _add("gcl_places_lt", places, _GCL_SOURCE, **_GCL, then=(_GCL_STAGE,))
    _add(
        "cc_sam_places_lt",
        places,
        f"{_CC_SAM_SOURCE}; epochs, and what is trained and frozen, as in MiSLAS",
        **{**_CC_SAM, "epochs": 90},
        batch_size=128,
        then=(replace(_CC_SAM_STAGE, batch_norm="running", batch_size=128),),
    )


_add_imagenet()
_add_inaturalist()
_add_places()
