"""Recipes of CIFAR-10/100-LT, each with its source.

Names end in the dataset and, unless it is 100, the imbalance factor. The numbers, and the
differences between the repositories, are those of the papers and programs named.
"""

from typing import Any

from jaxlt.recipes.data import TFDS, Exponential
from jaxlt.recipes.images import AutoAugment, ClassAware, ClassBalancedSampler
from jaxlt.recipes.losses import (
    GCL,
    LADE,
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    Focal,
    LabelAwareSmoothing,
    LogitAdjusted,
    PaperAdversary,
    ReleasedAdversary,
    VectorScaling,
)
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.named.vary import followed_by, vary
from jaxlt.recipes.network import Cosine, Small
from jaxlt.recipes.optimizer import (
    CCSAMMultiStep,
    Constant,
    CosineSteppedFirst,
    MultiStep,
    WarmupCosine,
)
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

_CIFAR = Recipe()  # ResNet-32, 200 epochs of SGD at 0.1, momentum 0.9
_COSINE_CLASSIFIER = Small(classifier=Cosine())
_FACTORS = (200, 100, 50, 10)
# LDAM-DRW's schedule, and MiSLAS's and GCL's.
_LDAM_STEPS, _TENTHS = MultiStep(), MultiStep(factors=(0.1, 0.01))

_SADDLE_SOURCE = "val-iisc/Saddle-LongTail (NeurIPS 2022)"
# Batch 128, steep multistep, as LDAM-DRW before it.
_SADDLE = vary(_CIFAR, batch_size=128, schedule=_LDAM_STEPS, weight_decay=2e-4)
_SADDLE_DRW = vary(_SADDLE, reweighting=ClassBalanced(epoch=160, mean="weights"))
_CLASS_BALANCED = vary(_SADDLE, reweighting=ClassBalanced(epoch=0, mean="weights"))
_SADDLE_LDAM_DRW = vary(_SADDLE_DRW, loss=LDAM(), network=_COSINE_CLASSIFIER)
# Its radius "step" option: 0.05 in the first 5 epochs, then 0.1, 0.5 after 160, 0.6 after 180.
_RHO_STEPS = SAM(rho=0.05, rho_epochs=(5, 160, 180), rho_values=(0.1, 0.5, 0.6))
# Its radius "linear" option, 0.05 to 0.8, in steps of a twentieth of the run.
_RHO_LINEAR = SAM(
    rho=0.05,
    rho_epochs=tuple(range(10, 200, 10)),
    rho_values=tuple(round(0.05 + 0.75 * epoch / 200, 4) for epoch in range(10, 200, 10)),
)

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025)"
# Logit-adjusted loss, batch 64, cosine to 0.
_FOCAL_SAM = vary(_CIFAR, loss=LogitAdjusted(), batch_size=64)

_SSE_SOURCE = "Zemdalk/SSE-SAM (AAAI 2025), without its flips at test time"
# First images of each class, ResNet-34 with a 3x3 stem, batch 64, learning rate 0.01.
_SSE = vary(
    _CIFAR,
    profile=Exponential(selection="first"),
    network=Small(architecture="resnet34"),
    batch_size=64,
    lr=0.01,
    schedule=CosineSteppedFirst(),
    weight_decay=1e-3,
)

_MISLAS_SOURCE = "dvlab-research/MiSLAS (CVPR 2021)"
_MIXUP = vary(_CIFAR, batch_size=128, schedule=_TENTHS, weight_decay=5e-4, mixup=1.0)
_DECOUPLED = vary(
    Stage(trainable="classifier", sampler=ClassAware(consecutive=4), epochs=10),
    weight_decay=5e-4,
)
# No configuration of these on CIFAR is published: Kang et al.'s second stages (ICLR 2020), on
# MiSLAS's first stage as in CC-SAM's table.
_CRT_SOURCE = "facebookresearch/classifier-balancing (ICLR 2020) on MiSLAS's first stage"
_CRT = vary(_DECOUPLED, reset_classifier=True)
_LWS = vary(_DECOUPLED, trainable="scale", learn_scale=True)
# Smoothing of head and tail, and the classifier's share of the learning rate, by imbalance factor;
# that of 200, which MiSLAS does not list, is that of 100.
_MISLAS_STAGE = vary(_DECOUPLED, learn_scale=True)
_MISLAS_NUMBERS = {
    10: {100: (0.3, 0.0, 0.5), 50: (0.2, 0.0, 0.2), 10: (0.1, 0.0, 0.2)},
    100: {100: (0.4, 0.1, 0.2), 50: (0.3, 0.0, 0.1), 10: (0.2, 0.0, 0.1)},
}

_GCL_SOURCE = "Keke921/GCLLoss (CVPR 2022)"
_GCL = vary(
    _CIFAR,
    network=_COSINE_CLASSIFIER,
    loss=GCL(),
    batch_size=64,
    schedule=_TENTHS,
    mixup=1.0,
)
GCL_STAGE = vary(
    Stage(
        trainable="classifier",
        batch_norm="running",
        sampler=ClassBalancedSampler(),
        loss=GCL(margin=0.1, focusing=1.0, scale=20.0),
        epochs=30,
        batch_size=64,
    ),
    mixup=1.0,
    lr=0.002,
)

_CC_SAM_SOURCE = (
    "zzpustc/CC-SAM (CVPR 2023), as released but for mixup, whose perturbed loss there is of an "
    "image's own label alone"
)
_CC_SAM_PAPER_SOURCE = "CC-SAM (CVPR 2023), equations 7-14, radius bounded"
CC_SAM = vary(_CIFAR, method=CCSAM(), batch_size=64, schedule=CCSAMMultiStep(), mixup=1.0)
CC_SAM_STAGE = vary(
    Stage(
        trainable="classifier",
        sampler=ClassAware(),
        adversary=PaperAdversary(),
        epochs=30,
        batch_size=64,
    ),
    lr=0.01,
    schedule=Constant(),
)

_BALMS_SOURCE = "jiawei-ren/BalancedMetaSoftmax (NeurIPS 2020)"
# 13,000 iterations of 512 images, whatever the dataset, and 2,000 in the second stage.
_BALMS = vary(
    _CIFAR,
    batch_size=512,
    schedule=WarmupCosine(),
    weight_decay=5e-4,
    policy=AutoAugment(),
    cutout=16,
)
_BALMS_EPOCHS = {10: (594, 91), 100: (701, 108)}
_BALMS_STAGE = vary(
    Stage(trainable="classifier", loss=BalancedSoftmax(), reset_classifier=True, batch_size=512),
    policy=AutoAugment(),
    cutout=16,
    schedule=CosineSteppedFirst(),
    weight_decay=5e-4,
)

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(
    name: str,
    recipe: Recipe,
    source: str,
    cifar: tuple[int, ...] = (10, 100),
    factors: tuple[int, ...] = _FACTORS,
    **by_classes: dict[int, Any],
) -> None:
    """Adds a recipe for each dataset and imbalance factor.

    Further arguments are fields with one value for each of CIFAR-10 and CIFAR-100.
    """
    for classes in cifar:
        own = {field: values[classes] for field, values in by_classes.items()}
        for factor in factors:
            full = f"{name}_cifar{classes}" + ("" if factor == 100 else f"_if{factor}")
            profile = recipe.data.profile.replace(imbalance_factor=factor)
            data = recipe.data.replace(source=TFDS(dataset=f"cifar{classes}"), profile=profile)
            RECIPES[full] = vary(recipe, data=data, **own)
            SOURCES[full] = source


def _one(name: str, recipe: Recipe, source: str) -> None:
    """Adds a recipe for CIFAR-100 at imbalance factor 100."""
    _add(name, recipe, source, (100,), (100,))


_add("sgd", _SADDLE, _SADDLE_SOURCE)
_add("sgd_drw", _SADDLE_DRW, _SADDLE_SOURCE)
_add("class_balanced", _CLASS_BALANCED, "Cui et al. (CVPR 2019), after Saddle")
_add(
    "class_balanced_focal",
    vary(_CLASS_BALANCED, loss=Focal(gamma=1.0)),
    "Cui et al. (CVPR 2019), after Saddle",
)
_add("ldam_drw", _SADDLE_LDAM_DRW, _SADDLE_SOURCE)
_add("vs", vary(_SADDLE, loss=VectorScaling()), _SADDLE_SOURCE)
_add(
    "vs_sam",
    vary(_SADDLE, loss=VectorScaling(), method=SAM(rho=0.8)),
    f"{_SADDLE_SOURCE}; the radius, which is not published, is that of LDAM-DRW+SAM",
)
_add("sam", _SADDLE, _SADDLE_SOURCE, method={10: SAM(rho=0.1), 100: SAM(rho=0.2)})
_add("sam_drw", _SADDLE_DRW, _SADDLE_SOURCE, method={10: SAM(rho=0.5), 100: SAM(rho=0.8)})
_add("sam_rho_steps", vary(_SADDLE_DRW, method=_RHO_STEPS), _SADDLE_SOURCE, factors=(100,))
_add("sam_rho_linear", vary(_SADDLE_DRW, method=_RHO_LINEAR), _SADDLE_SOURCE, factors=(100,))
_add("sam_ldam_drw", vary(_SADDLE_LDAM_DRW, method=SAM(rho=0.8)), _SADDLE_SOURCE)
_add(
    "focal_sam",
    _FOCAL_SAM,
    _FOCAL_SOURCE,
    method={
        10: FocalSAM(rho=0.2, gamma=3.0, sharpness_weight=0.5),
        100: FocalSAM(rho=0.3, gamma=3.2, sharpness_weight=0.8),
    },
    weight_decay={10: 2e-4, 100: 1e-3},
)
_one("sgd_resnet34", _SSE, _SSE_SOURCE)
_one("sam_resnet34", vary(_SSE, method=SAM(rho=0.05)), _SSE_SOURCE)
_one(
    "imb_sam",
    vary(_SSE, method=ImbSAM(rho=0.05, tail_threshold=20)),
    "cool-xuan/Imbalanced_SAM (ICCV 2023), without its factor 2 on tail losses",
)
_one(
    "sse_sam",
    vary(_SSE, method=SSESAM(head_rho=0.05, tail_rho=0.1, tail_threshold=100, switch_at=0.7)),
    _SSE_SOURCE,
)
_add("mixup", _MIXUP, f"{_MISLAS_SOURCE}, first stage")
_add("crt", followed_by(_MIXUP, _CRT), _CRT_SOURCE)
_add("lws", followed_by(_MIXUP, _LWS), _CRT_SOURCE)
_add("tau_norm", followed_by(_MIXUP, TauNorm(tau=0.5)), f"{_CRT_SOURCE}; tau is not tuned")
_add("ncm", followed_by(_MIXUP, NearestClassMean()), _CRT_SOURCE)
for _classes, _by_factor in _MISLAS_NUMBERS.items():
    for _factor in _FACTORS:
        _head, _tail, _lr_factor = _by_factor.get(_factor, _by_factor[100])
        _stage = vary(
            _MISLAS_STAGE,
            # Shifted batch norm on CIFAR-100 alone.
            batch_norm="batch" if _classes == 100 else "running",
            loss=LabelAwareSmoothing(head=_head, tail=_tail),
            classifier_lr_factor=_lr_factor,
        )
        _add("mislas", followed_by(_MIXUP, _stage), _MISLAS_SOURCE, (_classes,), (_factor,))
_add("gcl", followed_by(_GCL, GCL_STAGE), _GCL_SOURCE)
_add("cc_sam", followed_by(CC_SAM, CC_SAM_STAGE), _CC_SAM_PAPER_SOURCE)
for _classes, _ratio, _limit in ((10, 0.3, 1.0), (100, 0.5, 0.3)):
    # One norm a tensor; radius_scale 1e-6 moves the classifier by about 1e-5.
    _released = CCSAM(
        grad_norm="per_leaf", radius_scale=1e-6, max_relative_radius=None, flat_ratio=_ratio
    )
    _stage = vary(CC_SAM_STAGE, adversary=ReleasedAdversary(limit=_limit))
    _add(
        "cc_sam_released",
        followed_by(vary(CC_SAM, method=_released), _stage),
        _CC_SAM_SOURCE,
        (_classes,),
    )
for _classes, (_first, _second) in _BALMS_EPOCHS.items():
    _softmax = vary(_BALMS, epochs=_first)
    _balanced = vary(_softmax, loss=BalancedSoftmax())
    _decoupled = followed_by(_softmax, vary(_BALMS_STAGE, epochs=_second))
    for _name, _recipe in (
        ("balms_softmax", _softmax),
        ("balanced_softmax", _balanced),
        ("balanced_softmax_decoupled", _decoupled),
    ):
        _add(_name, _recipe, _BALMS_SOURCE, (_classes,), (200,))
_add("lade", vary(_SADDLE, loss=LADE()), "LADE (CVPR 2021) as in shijxcs/LIFT, after Saddle")
