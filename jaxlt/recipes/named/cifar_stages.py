"""Recipes of CIFAR-10/100-LT with mixup, and in two stages, each with its source.

Names and numbers are as `cifar` says.
"""

import functools
from typing import Any

from jaxlt.recipes import losses, optimizer
from jaxlt.recipes.data import ClassAware, ClassBalancedSampler
from jaxlt.recipes.methods import CCSAM
from jaxlt.recipes.named import CIFAR_FACTORS, add_on_cifar, followed_by, vary
from jaxlt.recipes.named.cifar import CIFAR, COSINE_CLASSIFIER
from jaxlt.recipes.policies import AutoAugment
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.schedule import CCSAMMultiStep, Constant
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

# The schedule of MiSLAS and GCL.
_TENTHS = optimizer.MultiStep(factors=(0.1, 0.01))

MISLAS_SOURCE = "dvlab-research/MiSLAS (CVPR 2021)"
_MIXUP = vary(CIFAR, batch_size=128, schedule=_TENTHS, weight_decay=5e-4, mixup=1.0)
DECOUPLED = vary(
    Stage(trainable="classifier"), sampler=ClassAware(consecutive=4), epochs=10, weight_decay=5e-4
)
KANG_SOURCE = "facebookresearch/classifier-balancing (ICLR 2020)"
# No configuration of these on CIFAR is published: Kang et al.'s second stages (ICLR 2020), on
# MiSLAS's first stage as in CC-SAM's table.
_CRT_SOURCE = f"{KANG_SOURCE} on MiSLAS's first stage"
_LWS = vary(DECOUPLED, trainable="scale", learn_scale=True)
# Smoothing of head and tail, and the classifier's share of the learning rate, by imbalance factor;
# that of 200, which MiSLAS does not list, is that of 100.
_MISLAS_NUMBERS = {
    10: {100: (0.3, 0.0, 0.5), 50: (0.2, 0.0, 0.2), 10: (0.1, 0.0, 0.2)},
    100: {100: (0.4, 0.1, 0.2), 50: (0.3, 0.0, 0.1), 10: (0.2, 0.0, 0.1)},
}

GCL_SOURCE = "Keke921/GCLLoss (CVPR 2022)"
_GCL = vary(
    CIFAR, network=COSINE_CLASSIFIER, batch_size=64, schedule=_TENTHS, mixup=1.0, loss=losses.GCL()
)
GCL_STAGE = vary(
    Stage(trainable="classifier", batch_norm="running", sampler=ClassBalancedSampler()),
    loss=losses.GCL(margin=0.1, focusing=1.0, scale=20.0),
    epochs=30,
    batch_size=64,
    mixup=1.0,
    lr=0.002,
)

_CC_SAM_SOURCE = (
    "zzpustc/CC-SAM (CVPR 2023), as released but for mixup, whose perturbed loss there is of an "
    "image's own label alone"
)
_CC_SAM_PAPER_SOURCE = "CC-SAM (CVPR 2023), equations 7-14, radius bounded"
CC_SAM = vary(CIFAR, method=CCSAM(), batch_size=64, schedule=CCSAMMultiStep(), mixup=1.0)
CC_SAM_STAGE = vary(
    Stage(trainable="classifier", sampler=ClassAware(), adversary=losses.PaperAdversary()),
    epochs=30,
    batch_size=64,
    lr=0.01,
    schedule=Constant(),
)

_BALMS_SOURCE = "jiawei-ren/BalancedMetaSoftmax (NeurIPS 2020)"
# 13,000 iterations of 512 images, whatever the dataset, and 2,000 in the second stage.
_BALMS_EPOCHS = {10: (594, 91), 100: (701, 108)}
_BALMS_FIELDS: dict[str, Any] = {
    "batch_size": 512,
    "weight_decay": 5e-4,
    "policy": AutoAugment(),
    "cutout": 16,
}
_BALMS = vary(CIFAR, schedule=optimizer.WarmupCosine(), **_BALMS_FIELDS)
_BALMS_STAGE = vary(
    Stage(trainable="classifier", loss=losses.BalancedSoftmax(), reset_classifier=True),
    schedule=optimizer.CosineSteppedFirst(),
    **_BALMS_FIELDS,
)

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}
_add = functools.partial(add_on_cifar, RECIPES, SOURCES)

_add("mixup", _MIXUP, f"{MISLAS_SOURCE}, first stage")
_add("crt", followed_by(_MIXUP, vary(DECOUPLED, reset_classifier=True)), _CRT_SOURCE)
_add("lws", followed_by(_MIXUP, _LWS), _CRT_SOURCE)
_add("tau_norm", followed_by(_MIXUP, TauNorm(tau=0.5)), f"{_CRT_SOURCE}; tau is not tuned")
_add("ncm", followed_by(_MIXUP, NearestClassMean()), _CRT_SOURCE)
for _classes, _by_factor in _MISLAS_NUMBERS.items():
    for _factor in CIFAR_FACTORS:
        _head, _tail, _lr_factor = _by_factor.get(_factor, _by_factor[100])
        _stage = vary(
            DECOUPLED,
            learn_scale=True,
            # Shifted batch norm on CIFAR-100 alone.
            batch_norm="batch" if _classes == 100 else "running",
            loss=losses.LabelAwareSmoothing(head=_head, tail=_tail),
            classifier_lr_factor=_lr_factor,
        )
        _recipe = followed_by(_MIXUP, _stage)
        _add("mislas", _recipe, MISLAS_SOURCE, cifar=(_classes,), factors=(_factor,))
_add("gcl", followed_by(_GCL, GCL_STAGE), GCL_SOURCE)
_add("cc_sam", followed_by(CC_SAM, CC_SAM_STAGE), _CC_SAM_PAPER_SOURCE)
for _classes, _ratio, _limit in ((10, 0.3, 1.0), (100, 0.5, 0.3)):
    # One norm a tensor; radius_scale 1e-6 moves the classifier by about 1e-5.
    _released = CCSAM(
        grad_norm="per_leaf", radius_scale=1e-6, max_relative_radius=None, flat_ratio=_ratio
    )
    _stage = vary(CC_SAM_STAGE, adversary=losses.ReleasedAdversary(limit=_limit))
    _recipe = followed_by(vary(CC_SAM, method=_released), _stage)
    _add("cc_sam_released", _recipe, _CC_SAM_SOURCE, cifar=(_classes,))
for _classes, (_first, _second) in _BALMS_EPOCHS.items():
    _softmax = vary(_BALMS, epochs=_first)
    _balanced = vary(_softmax, loss=losses.BalancedSoftmax())
    _decoupled = followed_by(_softmax, vary(_BALMS_STAGE, epochs=_second))
    _where: dict[str, Any] = {"cifar": (_classes,), "factors": (200,)}
    _add("balms_softmax", _softmax, _BALMS_SOURCE, **_where)
    _add("balanced_softmax", _balanced, _BALMS_SOURCE, **_where)
    _add("balanced_softmax_decoupled", _decoupled, _BALMS_SOURCE, **_where)
