"""The same methods on data that is at hand: long-tailed Fashion-MNIST and scikit-learn's digits.

One network, schedule and number of epochs for all; only what makes a method is its own. Radii, VS's
gamma and tau were chosen by `--data.validation-per-class 200` on Fashion-MNIST, with a seed of its
own.
"""

from jaxlt.recipes import losses
from jaxlt.recipes.data import ClassAware, ClassBalancedSampler, Data, Exponential
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.named import followed_by, vary
from jaxlt.recipes.network import CosineLayer, Small
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.sources import IDX, Digits
from jaxlt.recipes.stage import NearestClassMean, TauNorm

_SMALL_CONV = Small(architecture="small_conv")
# At most 1000 images a class, 10 of the rarest, and the garments that resemble each other are rare.
FASHION = vary(
    Recipe(network=_SMALL_CONV, evaluation=Evaluation(epochs=20)),
    source=IDX(directory="/usr/share/datasets/fashion-mnist"),
    profile=Exponential(max_per_class=1000, class_order=(9, 8, 5, 7, 1, 3, 0, 4, 2, 6)),
    epochs=60,
    batch_size=128,
    lr=0.05,
    weight_decay=5e-4,
    shift="none",
)
# 116 training images of the digit 0 down to 5 of the digit 9.
_DIGITS = vary(
    FASHION,
    data=Data(source=Digits(), profile=Exponential(imbalance_factor=20.0)),
    batch_size=64,
    evaluation=Evaluation(epochs=20, many_above=60, few_below=15),
)


def _recipes(base: Recipe, tail: int) -> dict[str, Recipe]:
    first = base.first
    adjusted, mixup = vary(base, loss=losses.LogitAdjusted()), vary(base, mixup=1.0)
    cosine = _SMALL_CONV.replace(classifier=CosineLayer())
    drw = losses.ClassBalanced(epoch=first.epochs * 4 // 5, mean="weights")
    # A sixth of the epochs, on balanced batches.
    second = first.replace(
        trainable="classifier", sampler=ClassAware(consecutive=4), epochs=first.epochs // 6
    )
    mislas = vary(
        second, learn_scale=True, loss=losses.LabelAwareSmoothing(), classifier_lr_factor=0.5
    )
    clouded = losses.GCL(margin=0.1, focusing=1.0, scale=20.0)
    gcl = vary(second, sampler=ClassBalancedSampler(), mixup=1.0, loss=clouded)
    lr = first.optimizer.lr / 5
    cc_sam = vary(second, sampler=ClassAware(), adversary=losses.PaperAdversary(), lr=lr)
    focal_sam = FocalSAM(rho=0.01, gamma=2.0, sharpness_weight=0.8)

    return {
        "sgd": base,
        "mixup": mixup,
        "ldam_drw": vary(base, network=cosine, loss=losses.LDAM(), reweighting=drw),
        "la": adjusted,
        "vs": vary(base, loss=losses.VectorScaling(gamma=0.05)),
        "crt": followed_by(base, vary(second, reset_classifier=True)),
        "tau_norm": followed_by(base, TauNorm(tau=0.5)),
        "ncm": followed_by(base, NearestClassMean()),
        "lws": followed_by(base, vary(second, trainable="scale", learn_scale=True)),
        "mislas": followed_by(mixup, mislas),
        "gcl": followed_by(vary(mixup, network=cosine, loss=losses.GCL()), gcl),
        "sam": vary(base, method=SAM(rho=0.01)),
        "sam_la": vary(adjusted, method=SAM(rho=0.01)),
        "imb_sam": vary(base, method=ImbSAM(rho=0.05, tail_threshold=tail)),
        "imb_sam_la": vary(adjusted, method=ImbSAM(rho=0.02, tail_threshold=tail)),
        "sse_sam": vary(base, method=SSESAM(head_rho=0.05, tail_rho=0.05, tail_threshold=tail)),
        "sse_sam_la": vary(
            adjusted, method=SSESAM(head_rho=0.02, tail_rho=0.02, tail_threshold=tail)
        ),
        "focal_sam": vary(base, method=focal_sam),
        "focal_sam_la": vary(adjusted, method=focal_sam),
        "cc_sam": followed_by(vary(mixup, method=CCSAM(max_relative_radius=0.003)), cc_sam),
    }


RECIPES: dict[str, Recipe] = {
    f"{name}_{data}": recipe
    for data, base, tail in (("fashion", FASHION, 100), ("digits", _DIGITS, 30))
    for name, recipe in _recipes(base, tail).items()
}
SOURCE = "ours, for data that is at hand"
SOURCES = dict.fromkeys(RECIPES, SOURCE)
