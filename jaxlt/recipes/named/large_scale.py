"""Recipes of ImageNet-LT, Places-LT and iNaturalist 2018, each with its source.

Names end in the benchmark. The lists of images are OLTR's and, for iNaturalist, the competition's;
`--data.source` says where they and the images are.
"""

from typing import Any

from jaxlt.recipes.data import Data, Lists, Native
from jaxlt.recipes.images import (
    Augmentation,
    ClassAware,
    ClassBalancedSampler,
    Progressive,
    SquareRoot,
)
from jaxlt.recipes.losses import (
    GCL,
    LADE,
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    LabelAwareSmoothing,
    LogitAdjusted,
)
from jaxlt.recipes.methods import CCSAM, SAM, FocalSAM
from jaxlt.recipes.named.cifar import CC_SAM_STAGE, GCL_STAGE
from jaxlt.recipes.named.vary import followed_by, vary
from jaxlt.recipes.network import Cosine, ImageNetResNet
from jaxlt.recipes.optimizer import CCSAMMultiStep, CosineSteppedFirst, MultiStep
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

_AUGMENTATION = Augmentation(shift="resized_crop_flip", color_jitter=0.4)
_LISTS = "data/{0},data/{1}_train.txt,data/{1}_val.txt,data/{1}_test.txt"


def _data(lists: str, normalization: str = "imagenet") -> Data:
    return Data(
        source=Lists(lists=lists),
        profile=Native(),
        image_size=224,
        resize="centre_crop",
        normalization=normalization,  # pyright: ignore[reportArgumentType] (a name of two)
    )


_FIRST = Stage(augmentation=_AUGMENTATION)
IMAGENET = Recipe(
    data=_data(_LISTS.format("imagenet", "ImageNet_LT")), network=ImageNetResNet(), stages=(_FIRST,)
)
# The competition's validation images are the test images of all papers.
INATURALIST = IMAGENET.replace(
    data=_data(
        "data/inaturalist2018,data/iNaturalist18_train.txt,data/iNaturalist18_val.txt",
        "inaturalist2018",
    )
)
PLACES = IMAGENET.replace(
    data=_data(_LISTS.format("places365", "Places_LT")),
    network=ImageNetResNet(architecture="resnet152", weights="data/resnet152.pth"),
)
_TENTHS = MultiStep(factors=(0.1, 0.01))
_COSINE = Cosine()

_KANG_SOURCE = "facebookresearch/classifier-balancing (ICLR 2020)"
_KANG: dict[str, Any] = {
    "epochs": 90,
    "batch_size": 512,
    "lr": 0.2,
    "schedule": CosineSteppedFirst(),
    "weight_decay": 5e-4,
}
_KANG_STAGE = vary(
    _FIRST,
    **{**_KANG, "epochs": 10},
    trainable="classifier",
    sampler=ClassAware(consecutive=4),
)
_TAU_NORM = TauNorm(tau=0.5)

# Saddle-LongTail and MiSLAS number the classes by size and cut them into groups by number.
_NUMBERED: dict[str, Any] = {"relabel": "by_size", "evaluation": Evaluation(few_below=21)}

_SADDLE_SOURCE = "val-iisc/Saddle-LongTail (NeurIPS 2022)"
# A radius of 0.05 in the first 5 epochs, 0.1 up to the 60th, then 0.5.
_SADDLE: dict[str, Any] = {
    **_NUMBERED,
    "epochs": 90,
    "batch_size": 256,
    "network": ImageNetResNet(classifier=_COSINE),
    "loss": LDAM(max_margin=0.3),
    "reweighting": ClassBalanced(epoch=60, mean="weights"),
    "method": SAM(rho=0.05, rho_epochs=(5, 60), rho_values=(0.1, 0.5)),
}

_MISLAS_SOURCE = "dvlab-research/MiSLAS (CVPR 2021)"
_MISLAS: dict[str, Any] = {**_NUMBERED, "batch_size": 256, "weight_decay": 5e-4, "mixup": 0.2}
_MISLAS_STAGE = vary(
    _KANG_STAGE.replace(optimizer=_FIRST.optimizer),
    loss=LabelAwareSmoothing(),
    learn_scale=True,
    classifier_lr_factor=0.05,
    batch_size=256,
    weight_decay=5e-4,
)

_GCL_SOURCE = (
    "Keke921/GCLLoss (CVPR 2022) on Places-LT, whose learning rate falls after epochs 60 and 80, "
    "not 72 and 81"
)
_GCL: dict[str, Any] = {
    "epochs": 90,
    "batch_size": 512,
    "loss": GCL(noise_scale=1.0),
    "lr": 0.2,
    "schedule": _TENTHS,
    "weight_decay": 5e-4,
    "mixup": 0.2,
}
_GCL_STAGE = vary(
    GCL_STAGE,
    augmentation=_AUGMENTATION.replace(mixup=GCL_STAGE.augmentation.mixup),
    batch_size=512,
    loss=GCL(margin=0.1, focusing=1.0, scale=15.0, noise_scale=1.0),
    weight_decay=5e-4,
)

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025)"

_CC_SAM_SOURCE = (
    "CC-SAM (CVPR 2023), equations 7-14 and the batch size; all else, which is not published, as "
    "its code has it for CIFAR, and the bound on the radius ours"
)
# OLTR's groups of classes: 100 images are many, 20 are few. With the bound of 0.05 that serves on
# ten classes a network of 200 learned no more than how frequent they are.
_CC_SAM: dict[str, Any] = {
    "method": CCSAM(max_relative_radius=0.003),
    "schedule": CCSAMMultiStep(),
    "mixup": 1.0,
    "evaluation": Evaluation(many_above=99, few_below=21),
}
_CC_SAM_STAGE = CC_SAM_STAGE.replace(augmentation=_AUGMENTATION)

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(name: str, recipe: Recipe, source: str, *then: Any, **fields: Any) -> None:
    """Adds a recipe with some fields changed and further stages."""
    RECIPES[name] = followed_by(vary(recipe, **fields), *then)
    SOURCES[name] = source


def _with_classifier(recipe: Recipe, classifier: Any) -> Recipe:
    return recipe.replace(network=recipe.network.replace(classifier=classifier))


def _without_jitter(stage: Stage) -> Stage:
    return vary(stage, color_jitter=0.0)


_LOSSES = {"balanced_softmax": BalancedSoftmax(), "lade": LADE()}


def _add_imagenet() -> None:
    resnext = vary(IMAGENET, network=ImageNetResNet(architecture="resnext50_32x4d"), **_KANG)
    not_tuned = f"{_KANG_SOURCE}; tau is not tuned"
    _add("sgd_imagenet_lt", resnext, _KANG_SOURCE)
    for name, sampler in (
        ("class_balanced", ClassBalancedSampler()),
        ("square_root", SquareRoot()),
        ("progressive", Progressive()),
    ):
        _add(f"{name}_imagenet_lt", resnext, _KANG_SOURCE, sampler=sampler)
    _add("ncm_imagenet_lt", resnext, _KANG_SOURCE, NearestClassMean())
    crt = vary(_KANG_STAGE, reset_classifier=True)
    _add("crt_imagenet_lt", resnext, _KANG_SOURCE, crt)
    lws = vary(_KANG_STAGE, trainable="scale", learn_scale=True, epochs=5)
    _add("lws_imagenet_lt", resnext, _KANG_SOURCE, lws)
    _add("tau_norm_imagenet_lt", resnext, not_tuned, _TAU_NORM)
    resnet = resnext.replace(network=ImageNetResNet())
    _add("tau_norm_resnet50_imagenet_lt", resnet, not_tuned, _TAU_NORM)
    for name, loss in _LOSSES.items():
        _add(f"{name}_imagenet_lt", resnext, f"{_KANG_SOURCE}, another loss", loss=loss)
    _add("sam_ldam_drw_imagenet_lt", IMAGENET, _SADDLE_SOURCE, **_SADDLE, lr=0.2)
    _add("mislas_imagenet_lt", IMAGENET, _MISLAS_SOURCE, _MISLAS_STAGE, **_MISLAS, epochs=180)
    _add("gcl_imagenet_lt", _with_classifier(IMAGENET, _COSINE), _GCL_SOURCE, _GCL_STAGE, **_GCL)
    focal: dict[str, Any] = {"loss": LogitAdjusted(), "batch_size": 256, "weight_decay": 5e-4}
    _add("la_imagenet_lt", IMAGENET, f"{_FOCAL_SOURCE}, without perturbation", **focal)
    method = FocalSAM(
        rho=0.1, rho_epochs=(159,), rho_values=(0.2,), gamma=0.8, sharpness_weight=0.8
    )
    _add("focal_sam_imagenet_lt", IMAGENET, _FOCAL_SOURCE, **focal, method=method)
    stage = vary(_CC_SAM_STAGE, batch_size=256)
    for name, base in (("cc_sam", resnet), ("cc_sam_resnext50", resnext)):
        recipe = IMAGENET.replace(network=base.network)
        _add(f"{name}_imagenet_lt", recipe, _CC_SAM_SOURCE, stage, **_CC_SAM, batch_size=256)


def _add_inaturalist() -> None:
    # Without colour jitter in all but MiSLAS's and Saddle's code.
    plain = vary(INATURALIST, color_jitter=0.0)
    kang = vary(plain, **{**_KANG, "weight_decay": 1e-4})
    _add("sgd_inaturalist", kang, _KANG_SOURCE)
    _add("tau_norm_inaturalist", kang, f"{_KANG_SOURCE}; tau is not tuned", _TAU_NORM)
    for name, loss in _LOSSES.items():
        _add(f"{name}_inaturalist", kang, f"{_KANG_SOURCE}, another loss", loss=loss)
    decay = {"weight_decay": 1e-4}
    _add("sam_ldam_drw_inaturalist", INATURALIST, _SADDLE_SOURCE, **_SADDLE, lr=0.1, **decay)
    _add(
        "mislas_inaturalist",
        INATURALIST,
        _MISLAS_SOURCE,
        vary(_MISLAS_STAGE, **decay),
        **{**_MISLAS, **decay},
        epochs=200,
    )
    cosine = _with_classifier(plain, _COSINE)
    _add("gcl_inaturalist", cosine, _GCL_SOURCE, _without_jitter(_GCL_STAGE), **_GCL)
    focal: dict[str, Any] = {
        "loss": LogitAdjusted(),
        "batch_size": 512,
        "lr": 0.2,
        "weight_decay": 2e-4,
    }
    _add("la_inaturalist", plain, f"{_FOCAL_SOURCE}, without perturbation", **focal)
    method = FocalSAM(rho=0.2, gamma=2.0, sharpness_weight=1.1)
    _add("focal_sam_inaturalist", plain, _FOCAL_SOURCE, **focal, method=method)
    stage = _without_jitter(vary(_CC_SAM_STAGE, batch_size=512))
    _add("cc_sam_inaturalist", plain, _CC_SAM_SOURCE, stage, **_CC_SAM, batch_size=512)


def _add_places() -> None:
    # Only a new last block and the classifier are trained (MiSLAS, GCL).
    places = vary(
        PLACES,
        network=PLACES.network.replace(last_block_weights=False),
        trainable="last_block",
        batch_norm="last_block",
        epochs=90,
        batch_size=256,
        weight_decay=5e-4,
    )
    plain = f"{_MISLAS_SOURCE} on Places-LT, without mixup and its second stage"
    _add("sgd_places_lt", places, plain)
    _add("tau_norm_places_lt", places, f"{plain}; tau is not tuned", _TAU_NORM)
    for name, loss in _LOSSES.items():
        _add(f"{name}_places_lt", places, f"{plain}, another loss", loss=loss)
    crt = vary(_KANG_STAGE, reset_classifier=True, batch_norm="last_block", batch_size=256, lr=0.1)
    _add("crt_places_lt", places, f"{_KANG_SOURCE} after {plain}", crt)
    smoothed = vary(
        _MISLAS_STAGE, batch_norm="last_block", loss=LabelAwareSmoothing(head=0.4, tail=0.1)
    )
    _add("mislas_places_lt", places, _MISLAS_SOURCE, smoothed, **_MISLAS)
    _add("gcl_places_lt", _with_classifier(places, _COSINE), _GCL_SOURCE, _GCL_STAGE, **_GCL)
    _add(
        "cc_sam_places_lt",
        places,
        f"{_CC_SAM_SOURCE}; epochs, and what is trained and frozen, as in MiSLAS",
        vary(_CC_SAM_STAGE, batch_norm="running", batch_size=128),
        **_CC_SAM,
        epochs=90,
        lr=0.1,
        weight_decay=2e-4,
        batch_size=128,
    )


_add_imagenet()
_add_inaturalist()
_add_places()
