"""Networks for long-tailed image classification, and the names by which flags choose them."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxlt.devices.backends import compiler_options as compiler_options
from jaxlt.models.create import create_model as create_model
from jaxlt.models.networks.convolution import BatchNorm as BatchNorm
from jaxlt.models.networks.convolution import Conv as Conv
from jaxlt.models.networks.cosine_head import CosineClassifier as CosineClassifier
from jaxlt.models.networks.decoupled_heads import (
    NearestClassMeanClassifier as NearestClassMeanClassifier,
)
from jaxlt.models.networks.decoupled_heads import ScaledLinearClassifier as ScaledLinearClassifier
from jaxlt.models.networks.heads import ImageClassifier as ImageClassifier
from jaxlt.models.networks.heads import LinearClassifier as LinearClassifier
from jaxlt.models.networks.layer_norm import GroupNorm as GroupNorm
from jaxlt.models.networks.layer_norm import LayerNorm as LayerNorm
from jaxlt.models.networks.resnet import ResNet as ResNet
from jaxlt.models.networks.resnet_cifar import CifarResNet as CifarResNet
from jaxlt.models.networks.small import MLP as MLP
from jaxlt.models.networks.small import SmallConvNet as SmallConvNet
from jaxlt.models.networks.vit import VisionTransformer as VisionTransformer

if TYPE_CHECKING:
    from jaxlt.models.clip.model import ClipClassifier as ClipClassifier
    from jaxlt.models.weights.pretrained import load_torch_weights as load_torch_weights

# Image encoders and files of weights, which few runs need, are imported when they are first used.
_LATER = {
    "ClipClassifier": "jaxlt.models.clip.model",
    "load_torch_weights": "jaxlt.models.weights.pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
