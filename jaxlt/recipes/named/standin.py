"""The same methods on data that is at hand: long-tailed Fashion-MNIST and scikit-learn's digits.

One network, schedule and number of epochs for all; only what makes a method is its own. Radii, VS's
gamma and tau were chosen by `--data.validation-per-class 200` on Fashion-MNIST, with a seed of its
own.
"""

from typing import Any

from jaxlt.recipes.data import IDX, Data, Digits, Exponential
from jaxlt.recipes.images import Augmentation, ClassAware, ClassBalancedSampler
from jaxlt.recipes.losses import (
    GCL,
    LDAM,
    ClassBalanced,
    LabelAwareSmoothing,
    LogitAdjusted,
    PaperAdversary,
    VectorScaling,
)
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.named.vary import followed_by, vary
from jaxlt.recipes.network import Cosine, Small
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

_SMALL_CONV = Small(architecture="small_conv")
# At most 1000 images a class, 10 of the rarest, and the garments that resemble each other are rare.
FASHION = Recipe(
    data=Data(
        source=IDX(directory="/usr/share/datasets/fashion-mnist"),
        profile=Exponential(max_per_class=1000, class_order=(9, 8, 5, 7, 1, 3, 0, 4, 2, 6)),
    ),
    network=_SMALL_CONV,
    stages=(
        Stage(
            epochs=60,
            batch_size=128,
            optimizer=Optimizer(lr=0.05, weight_decay=5e-4),
            augmentation=Augmentation(shift="none"),
        ),
    ),
    evaluation=Evaluation(epochs=20),
)
# 116 training images of the digit 0 down to 5 of the digit 9.
_DIGITS = vary(
    FASHION,
    data=Data(source=Digits(), profile=Exponential(imbalance_factor=20.0)),
    batch_size=64,
    evaluation=Evaluation(epochs=20, many_above=60, few_below=15),
)
_TAIL_THRESHOLDS = {"fashion": 100, "digits": 30}


def _second_stage(base: Recipe, **fields: Any) -> Stage:
    """Returns a stage of a sixth of the epochs that trains the classifier on balanced batches."""
    first = base.first
    stage = Stage(
        trainable="classifier",
        sampler=ClassAware(consecutive=4),
        augmentation=first.augmentation,
        optimizer=first.optimizer,
        batch_size=first.batch_size,
        epochs=first.epochs // 6,
    )
    return vary(stage, **fields)


def _recipes(base: Recipe, tail: int) -> dict[str, Recipe]:
    adjusted = vary(base, loss=LogitAdjusted())
    mixup = vary(base, mixup=1.0)
    cosine = _SMALL_CONV.replace(classifier=Cosine())
    drw = ClassBalanced(epoch=base.first.epochs * 4 // 5, mean="weights")
    focal_sam = FocalSAM(rho=0.01, gamma=2.0, sharpness_weight=0.8)
    cc_sam = vary(mixup, method=CCSAM(max_relative_radius=0.003))

    def sse_sam(rho: float) -> SSESAM:
        return SSESAM(head_rho=rho, tail_rho=rho, tail_threshold=tail)

    return {
        "sgd": base,
        "mixup": mixup,
        "ldam_drw": vary(base, network=cosine, loss=LDAM(), reweighting=drw),
        "la": adjusted,
        "vs": vary(base, loss=VectorScaling(gamma=0.05)),
        "crt": followed_by(base, _second_stage(base, reset_classifier=True)),
        "tau_norm": followed_by(base, TauNorm(tau=0.5)),
        "ncm": followed_by(base, NearestClassMean()),
        "lws": followed_by(base, _second_stage(base, trainable="scale", learn_scale=True)),
        "mislas": followed_by(
            mixup,
            _second_stage(
                base, learn_scale=True, loss=LabelAwareSmoothing(), classifier_lr_factor=0.5
            ),
        ),
        "gcl": followed_by(
            vary(mixup, network=cosine, loss=GCL()),
            _second_stage(
                base,
                sampler=ClassBalancedSampler(),
                mixup=1.0,
                loss=GCL(margin=0.1, focusing=1.0, scale=20.0),
            ),
        ),
        "sam": vary(base, method=SAM(rho=0.01)),
        "sam_la": vary(adjusted, method=SAM(rho=0.01)),
        "imb_sam": vary(base, method=ImbSAM(rho=0.05, tail_threshold=tail)),
        "imb_sam_la": vary(adjusted, method=ImbSAM(rho=0.02, tail_threshold=tail)),
        "sse_sam": vary(base, method=sse_sam(0.05)),
        "sse_sam_la": vary(adjusted, method=sse_sam(0.02)),
        "focal_sam": vary(base, method=focal_sam),
        "focal_sam_la": vary(adjusted, method=focal_sam),
        "cc_sam": followed_by(
            cc_sam,
            _second_stage(
                base,
                sampler=ClassAware(),
                adversary=PaperAdversary(),
                lr=base.first.optimizer.lr / 5,
            ),
        ),
    }


RECIPES: dict[str, Recipe] = {
    f"{name}_{data}": recipe
    for data, base in (("fashion", FASHION), ("digits", _DIGITS))
    for name, recipe in _recipes(base, _TAIL_THRESHOLDS[data]).items()
}
SOURCES = dict.fromkeys(RECIPES, "ours, for data that is at hand")
