"""Recipes of CIFAR-10/100-LT in one stage, each with its source.

Names end in the dataset and, unless it is 100, the imbalance factor. The numbers, and the
differences between the repositories, are those of the papers and programs named.
"""

import functools

import numpy as np

from jaxlt.recipes.data import Exponential
from jaxlt.recipes.losses import LADE, LDAM, ClassBalanced, Focal, LogitAdjusted, VectorScaling
from jaxlt.recipes.methods import SAM, SGD, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.named import add_on_cifar, vary
from jaxlt.recipes.network import CosineLayer, Small
from jaxlt.recipes.optimizer import CosineSteppedFirst, MultiStep
from jaxlt.recipes.recipe import Recipe

CIFAR = Recipe()  # ResNet-32, 200 epochs of SGD at 0.1, momentum 0.9
COSINE_CLASSIFIER = Small(classifier=CosineLayer())

SADDLE_SOURCE = "val-iisc/Saddle-LongTail (NeurIPS 2022)"
_CUI_SOURCE = "Cui et al. (CVPR 2019), after Saddle"
# Batch 128, steep multistep, as LDAM-DRW before it.
_SADDLE = vary(CIFAR, batch_size=128, schedule=MultiStep(), weight_decay=2e-4)
_SADDLE_DRW = vary(_SADDLE, reweighting=ClassBalanced(epoch=160, mean="weights"))
_CLASS_BALANCED = vary(_SADDLE, reweighting=ClassBalanced(epoch=0, mean="weights"))
_VS = vary(_SADDLE, loss=VectorScaling())
_VS_SAM_SOURCE = f"{SADDLE_SOURCE}; the radius, which is not published, is that of LDAM-DRW+SAM"
_SADDLE_LDAM_DRW = vary(_SADDLE_DRW, loss=LDAM(), network=COSINE_CLASSIFIER)
# Its radius "step" option: 0.05 in the first 5 epochs, then 0.1, 0.5 after 160, 0.6 after 180.
_RHO_STEPS = SAM(rho=0.05, rho_epochs=(5, 160, 180), rho_values=(0.1, 0.5, 0.6))
# Its radius "linear" option, 0.05 to 0.8, in steps of a twentieth of the run.
_TWENTIETHS = tuple(range(10, 200, 10))
_LINEAR = tuple(np.linspace(0.05, 0.8, 21)[1:-1].round(4).tolist())
_RHO_LINEAR = SAM(rho=0.05, rho_epochs=_TWENTIETHS, rho_values=_LINEAR)

FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025)"
_IMB_SAM_SOURCE = "cool-xuan/Imbalanced_SAM (ICCV 2023), without its factor 2 on tail losses"
_SSE_SOURCE = "Zemdalk/SSE-SAM (AAAI 2025), without its flips at test time"
_SSE = vary(
    CIFAR,
    profile=Exponential(selection="first"),
    network=Small(architecture="resnet34"),
    batch_size=64,
    lr=0.01,
    schedule=CosineSteppedFirst(),
    weight_decay=1e-3,
)
_SSE_SAM = SSESAM(head_rho=0.05, tail_rho=0.1, tail_threshold=100, switch_at=0.7)

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}

_add = functools.partial(add_on_cifar, RECIPES, SOURCES)

_add("sgd", _SADDLE, SADDLE_SOURCE)
_add("sgd_drw", _SADDLE_DRW, SADDLE_SOURCE)
_add("class_balanced", _CLASS_BALANCED, _CUI_SOURCE)
_add("class_balanced_focal", vary(_CLASS_BALANCED, loss=Focal(gamma=1.0)), _CUI_SOURCE)
_add("ldam_drw", _SADDLE_LDAM_DRW, SADDLE_SOURCE)
_add("vs", _VS, SADDLE_SOURCE)
_add("vs_sam", vary(_VS, method=SAM(rho=0.8)), _VS_SAM_SOURCE)
_add("sam", _SADDLE, SADDLE_SOURCE, method={10: SAM(rho=0.1), 100: SAM(rho=0.2)})
_add("sam_drw", _SADDLE_DRW, SADDLE_SOURCE, method={10: SAM(rho=0.5), 100: SAM(rho=0.8)})
_add("sam_rho_steps", vary(_SADDLE_DRW, method=_RHO_STEPS), SADDLE_SOURCE, factors=(100,))
_add("sam_rho_linear", vary(_SADDLE_DRW, method=_RHO_LINEAR), SADDLE_SOURCE, factors=(100,))
_add("sam_ldam_drw", vary(_SADDLE_LDAM_DRW, method=SAM(rho=0.8)), SADDLE_SOURCE)
_add(
    "focal_sam",
    vary(CIFAR, loss=LogitAdjusted(), batch_size=64),
    FOCAL_SOURCE,
    method={
        10: FocalSAM(rho=0.2, gamma=3.0, sharpness_weight=0.5),
        100: FocalSAM(rho=0.3, gamma=3.2, sharpness_weight=0.8),
    },
    weight_decay={10: 2e-4, 100: 1e-3},
)
for _name, _method, _source in (
    ("sgd_resnet34", SGD(), _SSE_SOURCE),
    ("sam_resnet34", SAM(rho=0.05), _SSE_SOURCE),
    ("imb_sam", ImbSAM(rho=0.05, tail_threshold=20), _IMB_SAM_SOURCE),
    ("sse_sam", _SSE_SAM, _SSE_SOURCE),
):
    _add(_name, vary(_SSE, method=_method), _source, cifar=(100,), factors=(100,))
_add("lade", vary(_SADDLE, loss=LADE()), "LADE (CVPR 2021) as in shijxcs/LIFT, after Saddle")
