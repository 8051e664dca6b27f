"""Recipes that fine-tune CLIP's image encoder, ViT-B/16, each with its source.

Names end in the data. `--network clip:DIR` says where the snapshot is; `--network random:tiny` with
`--network.classifier-init class_mean` tries a recipe without one.
"""

from typing import Any

from jaxlt.recipes.data import TFDS, Data
from jaxlt.recipes.images import Augmentation
from jaxlt.recipes.losses import LogitAdjusted
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.named.large_scale import IMAGENET, INATURALIST, PLACES
from jaxlt.recipes.named.standin import FASHION
from jaxlt.recipes.named.vary import vary
from jaxlt.recipes.network import Adaptation, Clip, Cosine, DINOv2, Network, RandomEncoder
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.recipe import Recipe

_ENCODER: dict[str, Any] = {
    "adaptation": Adaptation(kinds=("adaptformer",)),
    "classifier": Cosine(scale=25.0),
}
_CLIP = Clip(**_ENCODER, classifier_init="text", precision="bfloat16")
_TRAINING: dict[str, Any] = {
    "loss": LogitAdjusted(),
    "epochs": 20,
    "batch_size": 128,
    "optimizer": Optimizer(lr=0.01, weight_decay=5e-4),
}


def _fine_tuned(base: Recipe, network: Network, **fields: Any) -> Recipe:
    evaluation = base.evaluation.replace(epochs=5)
    return vary(base, network=network, evaluation=evaluation, **{**_TRAINING, **fields})


def _with_clip(base: Recipe, names: str | None = None, precision: str = "bfloat16") -> Recipe:
    return _fine_tuned(
        base,
        _CLIP.replace(class_names=names, precision=precision),
        image_size=224,
        normalization="clip",
        augmentation=Augmentation(shift="resized_crop_flip"),
    )


# What the lists call numbers, or by no more of a path than tells classes apart, has files of names.
_DATA: dict[str, Recipe] = {
    "cifar10": _with_clip(Recipe(data=Data(source=TFDS(dataset="cifar10")))),
    "cifar100": _with_clip(Recipe(data=Data(source=TFDS(dataset="cifar100")))),
    "imagenet_lt": _with_clip(IMAGENET, "data/imagenet_class_names.txt"),
    "places_lt": _with_clip(PLACES, "data/places365_class_names.txt"),
    "inaturalist": _with_clip(INATURALIST, "data/inaturalist2018_categories.json", "float32"),
}

_FOCAL_SOURCE = "scongl/Focal-SAM (ICML 2025), in bfloat16 where it has float16"
_LISTED_TEST = ", on test images resized to 256 pixels where it has 224"
_FOCAL: dict[str, FocalSAM] = {
    "cifar10": FocalSAM(rho=0.05, gamma=1.5, sharpness_weight=0.7),
    "cifar100": FocalSAM(rho=0.05, gamma=5.5, sharpness_weight=0.8),
    "imagenet_lt": FocalSAM(rho=0.05, gamma=0.5, sharpness_weight=0.8),
    "places_lt": FocalSAM(rho=0.05, gamma=0.5, sharpness_weight=0.8),
    "inaturalist": FocalSAM(rho=0.02, gamma=0.2, sharpness_weight=1.0),
}
_FOCAL_SOURCES = {
    "cifar10": _FOCAL_SOURCE,
    "cifar100": _FOCAL_SOURCE,
    "imagenet_lt": _FOCAL_SOURCE + _LISTED_TEST,
    "places_lt": "ours: Focal-SAM's recipe for ImageNet-LT",
    "inaturalist": "scongl/Focal-SAM (ICML 2025); its texts there go to wrong classes",
}
_LIFT_SOURCE = (
    "shijxcs/LIFT (ICML 2024); with its ensembling: --evaluation.test-time-augmentation 24"
)
_ARRAY_TEST = "; without, on whole test images where it crops them"
_SIBLINGS_SOURCE = "ours: Focal-SAM's recipe, another method"
_CC_SAM = CCSAM(max_relative_radius=0.003)


def _siblings(rho: float) -> dict[str, Method]:
    """Returns the other methods in Focal-SAM's recipes, tail classes being the few-shot ones."""
    return {
        "sam": SAM(rho=rho),
        "imb_sam": ImbSAM(rho=rho, tail_threshold=20),
        "sse_sam": SSESAM(head_rho=rho, tail_rho=rho, tail_threshold=20),
        "cc_sam": _CC_SAM,
    }


RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(name: str, recipe: Recipe, source: str, **fields: Any) -> None:
    RECIPES[name] = vary(recipe, **fields)
    SOURCES[name] = source


def _in_full(recipe: Recipe) -> Recipe:
    return recipe.replace(network=recipe.network.replace(adaptation=Adaptation()))


def _add_data(data: str) -> None:
    base, source, method = _DATA[data], _FOCAL_SOURCES[data], _FOCAL[data]
    _add(f"la_clip_{data}", base, f"{source}, without perturbation")
    _add(f"focal_sam_clip_{data}", base, source, method=method)
    full = f"{source}, fine-tuned in full"
    _add(f"focal_sam_clip_full_{data}", _in_full(base), full, method=method, lr=0.001)
    for name, sibling in _siblings(method.rho).items():
        _add(f"{name}_clip_{data}", base, _SIBLINGS_SOURCE, method=sibling)
    epochs = 20 if data == "inaturalist" else 10
    looks = _ARRAY_TEST if data.startswith("cifar") else ""
    _add(f"lift_clip_{data}", base, _LIFT_SOURCE + looks, epochs=epochs)


# What is at hand without weights, and with those of a small transformer that a package carries.
_TINY = _fine_tuned(
    FASHION, RandomEncoder(**_ENCODER, classifier_init="class_mean"), image_size=16, lr=0.05
)
_TINY_FULL = vary(_in_full(_TINY), lr=0.01)
_FASHION: dict[str, Recipe] = {
    "tiny": _TINY,
    "tiny_full": vary(_TINY_FULL, network=_TINY_FULL.network.replace(classifier_init="random")),
    "dinov2": vary(
        _TINY,
        network=DINOv2(**_ENCODER, classifier_init="class_mean", snapshot="data/dinov2_small"),
        image_size=42,
        lr=0.01,
        epochs=4,
    ),
}
_FASHION_METHODS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sam": {"method": SAM(rho=0.05)},
    "imb_sam": {"method": ImbSAM(rho=0.05, tail_threshold=100)},
    "sse_sam": {"method": SSESAM(head_rho=0.05, tail_rho=0.05, tail_threshold=100)},
    "focal_sam": {"method": FocalSAM(rho=0.05, gamma=1.5, sharpness_weight=0.7)},
    "cc_sam": {"method": _CC_SAM},
}

for _data in _DATA:
    _add_data(_data)
for _base, _recipe in _FASHION.items():
    for _method, _fields in _FASHION_METHODS.items():
        _add(f"{_method}_{_base}_fashion", _recipe, "ours, for data that is at hand", **_fields)
