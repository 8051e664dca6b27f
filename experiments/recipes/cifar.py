"""Named recipes of the CIFAR-LT experiments, each with its source.

The published numbers and the differences between the repositories are those of the papers and
programs named. Each recipe is the part that one stage of training can express; where the source
adds mixup or a second stage, the comment says so.
"""

from dataclasses import replace

from experiments.recipe import Recipe

_CIFAR = Recipe()  # ResNet-32, imbalance factor 100, 200 epochs of SGD at 0.1, momentum 0.9

# val-iisc/Saddle-LongTail (NeurIPS 2022) and LDAM-DRW before it: batch 128, steep multistep.
_SADDLE = replace(_CIFAR, batch_size=128, schedule="ldam", weight_decay=2e-4)
_SADDLE_DRW = replace(_SADDLE, reweight_epoch=160)
_SADDLE_LDAM_DRW = replace(_SADDLE_DRW, loss="ldam", classifier="cosine")
# Its radius "step" option: 0.05 in the first 5 epochs, then 0.1, 0.5 after 160, 0.6 after 180.
_SADDLE_RHO_STEPS = replace(
    _SADDLE_DRW, method="sam", rho=0.05, rho_epochs=(5, 160, 180), rho_values=(0.1, 0.5, 0.6)
)

# scongl/Focal-SAM (ICML 2025): logit-adjusted loss, batch 64, cosine to 0.
_FOCAL_SAM = replace(
    _CIFAR, method="focal_sam", loss="logit_adjusted", batch_size=64, schedule="cosine"
)

# Zemdalk/SSE-SAM (AAAI 2025) and cool-xuan/Imbalanced_SAM (ICCV 2023): first images of each
# class, batch 64, learning rate 0.01. Their network is a ResNet-34 with a 3x3 stem; the recipes
# take it where the model's name says so.
_SSE = replace(
    _CIFAR,
    selection="first",
    batch_size=64,
    lr=0.01,
    schedule="cosine_stepped_first",
    weight_decay=1e-3,
)

# zzpustc/CC-SAM (CVPR 2023), first stage, per-tensor norms on the classifier. Its CIFAR-100
# program adds mixup and a second stage; radius_scale 1e-6 moves the classifier by about 1e-5.
_CC_SAM_RELEASED = replace(
    _CIFAR,
    method="cc_sam",
    scope="classifier",
    batch_size=64,
    schedule="cc_sam",
    grad_norm="per_leaf",
    radius_scale=1e-6,
    max_relative_radius=None,
)
# The same with the paper's equations 8-9: one norm, bounded where the formula explodes.
_CC_SAM_PAPER = replace(
    _CC_SAM_RELEASED, grad_norm="global", radius_scale=1.0, max_relative_radius=0.05, flat_ratio=1.0
)


def _on_cifar(name: int, recipe: Recipe, **fields) -> Recipe:
    return replace(recipe, dataset=f"tfds:cifar{name}", **fields)


RECIPES: dict[str, Recipe] = {
    "sgd_cifar10": _on_cifar(10, _SADDLE),
    "sgd_cifar100": _on_cifar(100, _SADDLE),
    "sgd_drw_cifar10": _on_cifar(10, _SADDLE_DRW),
    "sgd_drw_cifar100": _on_cifar(100, _SADDLE_DRW),
    "ldam_drw_cifar10": _on_cifar(10, _SADDLE_LDAM_DRW),
    "ldam_drw_cifar100": _on_cifar(100, _SADDLE_LDAM_DRW),
    "sam_cifar10": _on_cifar(10, _SADDLE, method="sam", rho=0.1),
    "sam_cifar100": _on_cifar(100, _SADDLE, method="sam", rho=0.2),
    "sam_drw_cifar10": _on_cifar(10, _SADDLE_DRW, method="sam", rho=0.5),
    "sam_drw_cifar100": _on_cifar(100, _SADDLE_DRW, method="sam", rho=0.8),
    "sam_rho_steps_cifar10": _on_cifar(10, _SADDLE_RHO_STEPS),
    "sam_rho_steps_cifar100": _on_cifar(100, _SADDLE_RHO_STEPS),
    "sam_ldam_drw_cifar10": _on_cifar(10, _SADDLE_LDAM_DRW, method="sam", rho=0.8),
    "sam_ldam_drw_cifar100": _on_cifar(100, _SADDLE_LDAM_DRW, method="sam", rho=0.8),
    "focal_sam_cifar10": _on_cifar(10, _FOCAL_SAM, rho=0.2, gamma=3.0, sharpness=0.5),
    "focal_sam_cifar100": _on_cifar(
        100, _FOCAL_SAM, rho=0.3, gamma=3.2, sharpness=0.8, weight_decay=1e-3
    ),
    "imb_sam_cifar100": _on_cifar(
        100, _SSE, method="imb_sam", rho=0.05, tail_threshold=20, model="resnet34"
    ),
    "sse_sam_cifar100": _on_cifar(
        100,
        _SSE,
        method="sse_sam",
        head_rho=0.05,
        tail_rho=0.1,
        tail_threshold=100,
        switch_at=0.7,
        model="resnet34",
    ),
    "cc_sam_released_cifar10": _on_cifar(
        10, _CC_SAM_RELEASED, flat_ratio=0.3, imbalance_factor=200.0
    ),
    "cc_sam_released_cifar100": _on_cifar(
        100, _CC_SAM_RELEASED, flat_ratio=0.5, imbalance_factor=200.0
    ),
    "cc_sam_cifar10": _on_cifar(10, _CC_SAM_PAPER),
    "cc_sam_cifar100": _on_cifar(100, _CC_SAM_PAPER),
}
