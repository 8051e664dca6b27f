"""The same methods on data that is at hand: long-tailed Fashion-MNIST and scikit-learn's digits.

One network, schedule and number of epochs for all; only what makes a method is its own. Radii, VS's
gamma and tau were chosen by `--held-out 200` on Fashion-MNIST, with a seed of its own.
"""

from dataclasses import replace

from experiments.recipe import Recipe
from experiments.stage import Stage

# At most 1000 images a class, 10 of the rarest, and the garments that resemble each other are rare.
FASHION = Recipe(
    dataset="idx:/usr/share/datasets/fashion-mnist",
    imbalance_factor=100.0,
    max_per_class=1000,
    class_order=(9, 8, 5, 7, 1, 3, 0, 4, 2, 6),
    augmentation="none",
    model="small_conv",
    batch_size=128,
    lr=0.05,
    weight_decay=5e-4,
    epochs=60,
    eval_epochs=20,
    tail_threshold=100,
)
# 116 training images of the digit 0 down to 5 of the digit 9.
_DIGITS = replace(
    FASHION,
    dataset="digits",
    imbalance_factor=20.0,
    max_per_class=None,
    class_order=None,
    batch_size=64,
    many_above=60,
    few_below=15,
    tail_threshold=30,
)


def _second_stage(base: Recipe, **fields) -> Stage:
    """Returns a stage of a sixth of the epochs that trains the classifier on balanced batches."""
    return Stage(
        augmentation=base.augmentation,
        batch_size=base.batch_size,
        weight_decay=base.weight_decay,
        epochs=base.epochs // 6,
        **{
            "trainable": "classifier",
            "sampler": "class_aware",
            "consecutive": 4,
            "lr": base.lr,
            **fields,
        },
    )


def _recipes(base: Recipe) -> dict[str, Recipe]:
    adjusted = replace(base, loss="logit_adjusted")
    mixup = replace(base, mixup=1.0)
    gcl = replace(mixup, classifier="cosine", loss="gcl")
    cc_sam = replace(mixup, method="cc_sam", scope="classifier", max_relative_radius=0.003)
    return {
        "sgd": base,
        "mixup": mixup,
        "ldam_drw": replace(
            base,
            classifier="cosine",
            loss="ldam",
            reweight_epoch=base.epochs * 4 // 5,
            reweight_mean="weights",
        ),
        "la": adjusted,
        "vs": replace(base, loss="vector_scaling", scaling_gamma=0.05),
        "crt": replace(base, then=(_second_stage(base, reset_classifier=True),)),
        "tau_norm": replace(base, then=(Stage(kind="tau_norm", norm_tau=0.5),)),
        "ncm": replace(base, then=(Stage(kind="ncm"),)),
        "lws": replace(base, then=(_second_stage(base, trainable="scale", learn_scale=True),)),
        "mislas": replace(
            mixup,
            then=(
                _second_stage(
                    base,
                    learn_scale=True,
                    loss="label_aware_smoothing",
                    classifier_lr_factor=0.5,
                ),
            ),
        ),
        "gcl": replace(
            gcl,
            then=(
                _second_stage(
                    base,
                    sampler="class_balanced",
                    mixup=1.0,
                    loss="gcl",
                    gcl_margin=0.1,
                    gcl_focusing=1.0,
                    scale=20.0,
                ),
            ),
        ),
        "sam": replace(base, method="sam", rho=0.01),
        "sam_la": replace(adjusted, method="sam", rho=0.01),
        "imb_sam": replace(base, method="imb_sam", rho=0.05),
        "imb_sam_la": replace(adjusted, method="imb_sam", rho=0.02),
        "sse_sam": replace(base, method="sse_sam", head_rho=0.05, tail_rho=0.05),
        "sse_sam_la": replace(adjusted, method="sse_sam", head_rho=0.02, tail_rho=0.02),
        "focal_sam": replace(base, method="focal_sam", rho=0.01, gamma=2.0, sharpness=0.8),
        "focal_sam_la": replace(adjusted, method="focal_sam", rho=0.01, gamma=2.0, sharpness=0.8),
        "cc_sam": replace(
            cc_sam, then=(_second_stage(base, consecutive=1, adversary="paper", lr=base.lr / 5),)
        ),
    }


RECIPES: dict[str, Recipe] = {
    f"{name}_{data}": recipe
    for data, base in (("fashion", FASHION), ("digits", _DIGITS))
    for name, recipe in _recipes(base).items()
}
SOURCES = dict.fromkeys(RECIPES, "ours, for data that is at hand")
