"""Networks for long-tailed image classification, and the names by which flags choose them.

A name is imported when it is first used: programs' help needs no network, a run its own alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlt.models.clip.model import ClipClassifier as ClipClassifier
    from jaxlt.models.create import create_model as create_model
    from jaxlt.models.networks.heads import CosineClassifier as CosineClassifier
    from jaxlt.models.networks.heads import ImageClassifier as ImageClassifier
    from jaxlt.models.networks.heads import LinearClassifier as LinearClassifier
    from jaxlt.models.networks.heads import NearestClassMeanClassifier as NearestClassMeanClassifier
    from jaxlt.models.networks.heads import ScaledLinearClassifier as ScaledLinearClassifier
    from jaxlt.models.networks.normalisation import BatchNorm as BatchNorm
    from jaxlt.models.networks.normalisation import GroupNorm as GroupNorm
    from jaxlt.models.networks.normalisation import LayerNorm as LayerNorm
    from jaxlt.models.networks.resnet import ResNet as ResNet
    from jaxlt.models.networks.resnet_cifar import CifarResNet as CifarResNet
    from jaxlt.models.networks.small import MLP as MLP
    from jaxlt.models.networks.small import SmallConvNet as SmallConvNet
    from jaxlt.models.networks.vit import VisionTransformer as VisionTransformer
    from jaxlt.models.weights.pretrained import load_initial_weights as load_initial_weights
    from jaxlt.models.weights.pretrained import load_torch_weights as load_torch_weights

_MODULES = {
    "ClipClassifier": "jaxlt.models.clip.model",
    "create_model": "jaxlt.models.create",
    "CosineClassifier": "jaxlt.models.networks.heads",
    "ImageClassifier": "jaxlt.models.networks.heads",
    "LinearClassifier": "jaxlt.models.networks.heads",
    "NearestClassMeanClassifier": "jaxlt.models.networks.heads",
    "ScaledLinearClassifier": "jaxlt.models.networks.heads",
    "BatchNorm": "jaxlt.models.networks.normalisation",
    "GroupNorm": "jaxlt.models.networks.normalisation",
    "LayerNorm": "jaxlt.models.networks.normalisation",
    "ResNet": "jaxlt.models.networks.resnet",
    "CifarResNet": "jaxlt.models.networks.resnet_cifar",
    "MLP": "jaxlt.models.networks.small",
    "SmallConvNet": "jaxlt.models.networks.small",
    "VisionTransformer": "jaxlt.models.networks.vit",
    "load_initial_weights": "jaxlt.models.weights.pretrained",
    "load_torch_weights": "jaxlt.models.weights.pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
