"""Recipes of CIFAR-10/100-LT, each with its source.

Names end in the dataset and, unless it is 100, the imbalance factor. The numbers, and the
differences between the repositories, are those of the papers and programs named.
"""

from dataclasses import replace
from typing import Any

from experiments.recipe import Recipe
from experiments.stage import Stage

_CIFAR = Recipe()  # ResNet-32, 200 epochs of SGD at 0.1, momentum 0.9
_FACTORS = (200, 100, 50, 10)

_SADDLE_SOURCE = "val-iisc/Saddle-LongTail (NeurIPS 2022)"
# Batch 128, steep multistep, as LDAM-DRW before it.
_SADDLE = replace(_CIFAR, batch_size=128, schedule="ldam", weight_decay=2e-4)
_SADDLE_DRW = replace(_SADDLE, reweight_epoch=160, reweight_mean="weights")
_CLASS_BALANCED = replace(_SADDLE, reweight_epoch=0, reweight_mean="weights")
_SADDLE_LDAM_DRW = replace(_SADDLE_DRW, loss="ldam", classifier="cosine")
# Its radius "step" option: 0.05 in the first 5 epochs, then 0.1, 0.5 after 160, 0.6 after 180.
_SADDLE_RHO_STEPS = replace(
    _SADDLE_DRW, method="sam", rho=0.05, rho_epochs=(5, 160, 180), rho_values=(0.1, 0.5, 0.6)
)
# Its radius "linear" option, 0.05 to 0.8, in steps of a twentieth of the run.
_SADDLE_RHO_LINEAR = replace(
    _SADDLE_DRW,
    method="sam",
    rho=0.05,
    rho_epochs=tuple(range(10, 200, 10)),
    rho_values=tuple(round(0.05 + 0.75 * epoch / 200, 4) for epoch in range(10, 200, 10)),
)

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025)"
# Logit-adjusted loss, batch 64, cosine to 0.
_FOCAL_SAM = replace(
    _CIFAR, method="focal_sam", loss="logit_adjusted", batch_size=64, schedule="cosine"
)

_SSE_SOURCE = "Zemdalk/SSE-SAM (AAAI 2025), without its flips at test time"
# First images of each class, ResNet-34 with a 3x3 stem, batch 64, learning rate 0.01.
_SSE = replace(
    _CIFAR,
    selection="first",
    model="resnet34",
    batch_size=64,
    lr=0.01,
    schedule="cosine_stepped_first",
    weight_decay=1e-3,
)

_MISLAS_SOURCE = "dvlab-research/MiSLAS (CVPR 2021)"
_MIXUP = replace(_CIFAR, batch_size=128, schedule="tenths", weight_decay=5e-4, mixup=1.0)
_DECOUPLED = Stage(
    trainable="classifier",
    sampler="class_aware",
    consecutive=4,
    epochs=10,
    batch_size=128,
    lr=0.1,
    schedule="cosine",
    weight_decay=5e-4,
)
# No configuration of these on CIFAR is published: Kang et al.'s second stages (ICLR 2020), on
# MiSLAS's first stage as in CC-SAM's table.
_CRT_SOURCE = "facebookresearch/classifier-balancing (ICLR 2020) on MiSLAS's first stage"
_CRT = replace(_DECOUPLED, reset_classifier=True)
_LWS = replace(_DECOUPLED, trainable="scale", learn_scale=True)
_TAU_NORM = Stage(kind="tau_norm", norm_tau=0.5)
_NCM = Stage(kind="ncm")
# Smoothing of head and tail, and the classifier's share of the learning rate, by imbalance factor;
# that of 200, which MiSLAS does not list, is that of 100.
_MISLAS_STAGE = replace(_DECOUPLED, learn_scale=True, loss="label_aware_smoothing")
_MISLAS_NUMBERS = {
    10: {100: (0.3, 0.0, 0.5), 50: (0.2, 0.0, 0.2), 10: (0.1, 0.0, 0.2)},
    100: {100: (0.4, 0.1, 0.2), 50: (0.3, 0.0, 0.1), 10: (0.2, 0.0, 0.1)},
}

_GCL_SOURCE = "Keke921/GCLLoss (CVPR 2022)"
_GCL = replace(_CIFAR, classifier="cosine", loss="gcl", batch_size=64, schedule="tenths", mixup=1.0)
GCL_STAGE = Stage(
    trainable="classifier",
    batch_norm="running",
    sampler="class_balanced",
    mixup=1.0,
    loss="gcl",
    gcl_margin=0.1,
    gcl_focusing=1.0,
    scale=20.0,
    epochs=30,
    batch_size=64,
    lr=0.002,
    schedule="cosine",
)

_CC_SAM_SOURCE = (
    "zzpustc/CC-SAM (CVPR 2023), as released but for mixup, whose perturbed loss there is of an "
    "image's own label alone"
)
_CC_SAM_PAPER_SOURCE = "CC-SAM (CVPR 2023), equations 7-14, radius bounded"
CC_SAM = replace(
    _CIFAR, method="cc_sam", scope="classifier", batch_size=64, schedule="cc_sam", mixup=1.0
)
# One norm a tensor; radius_scale 1e-6 moves the classifier by about 1e-5.
_CC_SAM_RELEASED = replace(
    CC_SAM, grad_norm="per_leaf", radius_scale=1e-6, max_relative_radius=None
)
CC_SAM_STAGE = Stage(
    trainable="classifier",
    sampler="class_aware",
    adversary="paper",
    epochs=30,
    batch_size=64,
    lr=0.01,
    schedule="constant",
)
_CC_SAM_STAGE_RELEASED = replace(CC_SAM_STAGE, adversary="released")

_BALMS_SOURCE = "jiawei-ren/BalancedMetaSoftmax (NeurIPS 2020)"
# 13,000 iterations of 512 images, whatever the dataset, and 2,000 in the second stage.
_BALMS = replace(
    _CIFAR,
    batch_size=512,
    schedule="warmup_cosine",
    weight_decay=5e-4,
    policy="autoaugment",
    cutout=16,
)
_BALMS_EPOCHS = {10: (594, 91), 100: (701, 108)}
_BALMS_STAGE = Stage(
    trainable="classifier",
    policy="autoaugment",
    cutout=16,
    loss="balanced_softmax",
    reset_classifier=True,
    batch_size=512,
    lr=0.1,
    schedule="cosine_stepped_first",
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
    **by_classes: Any,
) -> None:
    """Adds a recipe for each dataset and imbalance factor.

    A field given as a dictionary has one value for each of CIFAR-10 and CIFAR-100.
    """
    for classes in cifar:
        own = {field: values[classes] for field, values in by_classes.items()}
        for factor in factors:
            full = f"{name}_cifar{classes}" + ("" if factor == 100 else f"_if{factor}")
            RECIPES[full] = replace(
                recipe, dataset=f"tfds:cifar{classes}", imbalance_factor=float(factor), **own
            )
            SOURCES[full] = source


_add("sgd", _SADDLE, _SADDLE_SOURCE)
_add("sgd_drw", _SADDLE_DRW, _SADDLE_SOURCE)
_add("class_balanced", _CLASS_BALANCED, "Cui et al. (CVPR 2019), after Saddle")
_add(
    "class_balanced_focal",
    replace(_CLASS_BALANCED, loss="focal", focal_gamma=1.0),
    "Cui et al. (CVPR 2019), after Saddle",
)
_add("ldam_drw", _SADDLE_LDAM_DRW, _SADDLE_SOURCE)
_add("vs", replace(_SADDLE, loss="vector_scaling"), _SADDLE_SOURCE)
_add(
    "vs_sam",
    replace(_SADDLE, loss="vector_scaling", method="sam", rho=0.8),
    f"{_SADDLE_SOURCE}; the radius, which is not published, is that of LDAM-DRW+SAM",
)
_add("sam", replace(_SADDLE, method="sam"), _SADDLE_SOURCE, rho={10: 0.1, 100: 0.2})
_add("sam_drw", replace(_SADDLE_DRW, method="sam"), _SADDLE_SOURCE, rho={10: 0.5, 100: 0.8})
_add("sam_rho_steps", _SADDLE_RHO_STEPS, _SADDLE_SOURCE, factors=(100,))
_add("sam_rho_linear", _SADDLE_RHO_LINEAR, _SADDLE_SOURCE, factors=(100,))
_add("sam_ldam_drw", replace(_SADDLE_LDAM_DRW, method="sam", rho=0.8), _SADDLE_SOURCE)
_add(
    "focal_sam",
    _FOCAL_SAM,
    _FOCAL_SOURCE,
    rho={10: 0.2, 100: 0.3},
    gamma={10: 3.0, 100: 3.2},
    sharpness={10: 0.5, 100: 0.8},
    weight_decay={10: 2e-4, 100: 1e-3},
)
_add("sgd_resnet34", _SSE, _SSE_SOURCE, (100,), (100,))
_add("sam_resnet34", replace(_SSE, method="sam", rho=0.05), _SSE_SOURCE, (100,), (100,))
_add(
    "imb_sam",
    replace(_SSE, method="imb_sam", rho=0.05, tail_threshold=20),
    "cool-xuan/Imbalanced_SAM (ICCV 2023), without its factor 2 on tail losses",
    (100,),
    (100,),
)
_add(
    "sse_sam",
    replace(_SSE, method="sse_sam", head_rho=0.05, tail_rho=0.1, tail_threshold=100, switch_at=0.7),
    _SSE_SOURCE,
    (100,),
    (100,),
)
_add("mixup", _MIXUP, f"{_MISLAS_SOURCE}, first stage")
_add("crt", replace(_MIXUP, then=(_CRT,)), _CRT_SOURCE)
_add("lws", replace(_MIXUP, then=(_LWS,)), _CRT_SOURCE)
_add("tau_norm", replace(_MIXUP, then=(_TAU_NORM,)), f"{_CRT_SOURCE}; tau is not tuned")
_add("ncm", replace(_MIXUP, then=(_NCM,)), _CRT_SOURCE)
for _classes, _by_factor in _MISLAS_NUMBERS.items():
    for _factor in _FACTORS:
        _head, _tail, _lr_factor = _by_factor.get(_factor, _by_factor[100])
        _stage = replace(
            _MISLAS_STAGE,
            # Shifted batch norm on CIFAR-100 alone.
            batch_norm="batch" if _classes == 100 else "running",
            smoothing_head=_head,
            smoothing_tail=_tail,
            classifier_lr_factor=_lr_factor,
        )
        _add("mislas", replace(_MIXUP, then=(_stage,)), _MISLAS_SOURCE, (_classes,), (_factor,))
_add("gcl", replace(_GCL, then=(GCL_STAGE,)), _GCL_SOURCE)
_add("cc_sam", replace(CC_SAM, then=(CC_SAM_STAGE,)), _CC_SAM_PAPER_SOURCE)
for _classes, _ratio, _limit in ((10, 0.3, 1.0), (100, 0.5, 0.3)):
    _add(
        "cc_sam_released",
        replace(
            _CC_SAM_RELEASED,
            flat_ratio=_ratio,
            then=(replace(_CC_SAM_STAGE_RELEASED, adversary_limit=_limit),),
        ),
        _CC_SAM_SOURCE,
        (_classes,),
    )
for _classes, (_first, _second) in _BALMS_EPOCHS.items():
    _recipe = replace(_BALMS, epochs=_first)
    _add("balms_softmax", _recipe, _BALMS_SOURCE, (_classes,), (200,))
    _add(
        "balanced_softmax",
        replace(_recipe, loss="balanced_softmax"),
        _BALMS_SOURCE,
        (_classes,),
        (200,),
    )
    _add(
        "balanced_softmax_decoupled",
        replace(_recipe, then=(replace(_BALMS_STAGE, epochs=_second),)),
        _BALMS_SOURCE,
        (_classes,),
        (200,),
    )
_add("lade", replace(_SADDLE, loss="lade"), "LADE (CVPR 2021) as in shijxcs/LIFT, after Saddle")
