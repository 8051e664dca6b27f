"""Recipes that fine-tune CLIP's vision tower, ViT-B/16, each with its source.

Names end in the data. `--model` says where the snapshot is; `--model random:tiny` with
`--classifier-init class_mean` tries a recipe without one.
"""

from dataclasses import replace
from typing import Any

from experiments.recipe import Recipe
from experiments.recipes.large_scale import IMAGENET, INATURALIST, PLACES
from experiments.recipes.standin import FASHION

_CLIP: dict[str, Any] = {
    "model": "clip:openai/clip-vit-base-patch16",
    "init_weights": None,
    "adaptation": ("adaptformer",),
    "classifier": "cosine",
    "cosine_scale": 25.0,
    "classifier_init": "text",
    "image_size": 224,
    "normalization": "clip",
    "augmentation": "resized_crop_flip",
    "color_jitter": 0.0,
    "precision": "bfloat16",
    "loss": "logit_adjusted",
    "epochs": 20,
    "eval_epochs": 5,
    "batch_size": 128,
    "lr": 0.01,
    "schedule": "cosine",
    "weight_decay": 5e-4,
}
# What the lists call numbers, or by no more of a path than tells classes apart, has files of names.
_IMAGENET_NAMES = "data/imagenet_class_names.txt"
_PLACES_NAMES = "data/places365_class_names.txt"
_INATURALIST_NAMES = "data/inaturalist2018_categories.json"
_DATA: dict[str, Recipe] = {
    "cifar10": replace(Recipe(dataset="tfds:cifar10"), **_CLIP),
    "cifar100": replace(Recipe(dataset="tfds:cifar100"), **_CLIP),
    "imagenet_lt": replace(IMAGENET, **_CLIP, class_names=_IMAGENET_NAMES),
    "places_lt": replace(PLACES, **_CLIP, class_names=_PLACES_NAMES),
    "inaturalist": replace(
        INATURALIST, **{**_CLIP, "precision": "float32"}, class_names=_INATURALIST_NAMES
    ),
}

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025), in bfloat16 where it has float16"
_LISTED_TEST = ", on test images resized to 256 pixels where it has 224"
_FOCAL: dict[str, dict[str, Any]] = {
    "cifar10": {"rho": 0.05, "gamma": 1.5, "sharpness": 0.7},
    "cifar100": {"rho": 0.05, "gamma": 5.5, "sharpness": 0.8},
    "imagenet_lt": {"rho": 0.05, "gamma": 0.5, "sharpness": 0.8},
    "places_lt": {"rho": 0.05, "gamma": 0.5, "sharpness": 0.8},
    "inaturalist": {"rho": 0.02, "gamma": 0.2, "sharpness": 1.0},
}
_FOCAL_SOURCES = {
    "cifar10": _FOCAL_SOURCE,
    "cifar100": _FOCAL_SOURCE,
    "imagenet_lt": _FOCAL_SOURCE + _LISTED_TEST,
    "places_lt": "ours: Focal-SAM's recipe for ImageNet-LT",
    "inaturalist": "scongl/Focal-SAM (ICML 2025); its texts there go to wrong classes",
}
_LIFT_SOURCE = "shijxcs/LIFT (ICML 2024); with its ensembling: --tte 24"
_ARRAY_TEST = "; without, on whole test images where it crops them"
_SIBLINGS_SOURCE = "ours: Focal-SAM's recipe, another method"

# The other methods in Focal-SAM's recipes, tail classes being the few-shot ones.
_SIBLINGS: dict[str, dict[str, Any]] = {
    "sam": {"method": "sam"},
    "imb_sam": {"method": "imb_sam", "tail_threshold": 20},
    "sse_sam": {"method": "sse_sam", "tail_threshold": 20},
    "cc_sam": {"method": "cc_sam", "scope": "classifier", "max_relative_radius": 0.003},
}

RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(name: str, recipe: Recipe, source: str, **fields: Any) -> None:
    RECIPES[name] = replace(recipe, **fields)
    SOURCES[name] = source


def _add_data(data: str) -> None:
    base, source, numbers = _DATA[data], _FOCAL_SOURCES[data], _FOCAL[data]
    rho = numbers["rho"]
    _add(f"la_clip_{data}", base, f"{source}, without perturbation")
    focal = replace(base, method="focal_sam", **numbers)
    _add(f"focal_sam_clip_{data}", focal, source)
    full: dict[str, Any] = {"adaptation": ("full",), "lr": 0.001}
    _add(f"focal_sam_clip_full_{data}", focal, f"{source}, fine-tuned in full", **full)
    for name, fields in _SIBLINGS.items():
        radii = {"head_rho": rho, "tail_rho": rho} if name == "sse_sam" else {"rho": rho}
        _add(f"{name}_clip_{data}", base, _SIBLINGS_SOURCE, **fields, **radii)
    epochs = 20 if data == "inaturalist" else 10
    looks = _ARRAY_TEST if data.startswith("cifar") else ""
    _add(f"lift_clip_{data}", base, _LIFT_SOURCE + looks, epochs=epochs)


# What is at hand without weights, and with those of a small transformer that a package carries.
_HERE: dict[str, Any] = {
    **_CLIP,
    "model": "random:tiny",
    "image_size": 16,
    "classifier_init": "class_mean",
    "normalization": "dataset",
    "augmentation": "none",
    "precision": "float32",
    "lr": 0.05,
}
_TINY = replace(FASHION, **_HERE)
_FASHION: dict[str, Recipe] = {
    "tiny": _TINY,
    "tiny_full": replace(_TINY, adaptation=("full",), classifier_init="random", lr=0.01),
    "dinov2": replace(_TINY, model="dinov2:data/dinov2_small", image_size=42, lr=0.01, epochs=4),
}
_FASHION_METHODS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sam": {"method": "sam", "rho": 0.05},
    "imb_sam": {"method": "imb_sam", "rho": 0.05},
    "sse_sam": {"method": "sse_sam", "head_rho": 0.05, "tail_rho": 0.05},
    "focal_sam": {"method": "focal_sam", "rho": 0.05, "gamma": 1.5, "sharpness": 0.7},
    "cc_sam": _SIBLINGS["cc_sam"],
}

for _data in _DATA:
    _add_data(_data)
for _base, _recipe in _FASHION.items():
    for _method, _fields in _FASHION_METHODS.items():
        _add(f"{_method}_{_base}_fashion", _recipe, "ours, for data that is at hand", **_fields)
