"""Networks for long-tailed image classification, and the names by which flags choose them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.models.adaptation.kinds import Adaptation, names_tower
from jaxlt.models.clip.classifier import ClipClassifier as ClipClassifier
from jaxlt.models.clip.vision_towers import tower_config
from jaxlt.models.networks.batch_norm import BatchNorm as BatchNorm
from jaxlt.models.networks.group_norm import GroupNorm as GroupNorm
from jaxlt.models.networks.heads import CosineClassifier as CosineClassifier
from jaxlt.models.networks.heads import ImageClassifier as ImageClassifier
from jaxlt.models.networks.heads import LinearClassifier as LinearClassifier
from jaxlt.models.networks.heads import NearestClassMeanClassifier as NearestClassMeanClassifier
from jaxlt.models.networks.heads import ScaledLinearClassifier as ScaledLinearClassifier
from jaxlt.models.networks.layer_norm import LayerNorm as LayerNorm
from jaxlt.models.networks.mlp import MLP as MLP
from jaxlt.models.networks.resnet import ResNet as ResNet
from jaxlt.models.networks.resnet_cifar import CifarResNet as CifarResNet
from jaxlt.models.networks.small_conv import SmallConvNet as SmallConvNet
from jaxlt.models.networks.vit import VisionTransformer as VisionTransformer
from jaxlt.models.weights.pretrained import load_initial_weights as load_initial_weights
from jaxlt.models.weights.pretrained import load_torch_weights as load_torch_weights

ImageShape = tuple[int, int, int]


def _small_conv(image_shape: ImageShape, **fields: Any) -> ImageClassifier:
    """Chooses the largest patch that leaves the convolutions at least 4x4 positions."""
    height, width, _ = image_shape
    if min(height, width) < 4:
        raise UsageError(f"small_conv's images were {height}x{width}, must be at least 4x4 pixels")
    fitting = (
        patch
        for patch in (4, 2, 1)
        if height % patch == width % patch == 0 and min(height, width) // patch >= 4
    )
    return SmallConvNet(patch=next(fitting), **fields)


def _resnet(blocks: int, *, image_shape: ImageShape, **fields: Any) -> ImageClassifier:
    del image_shape
    return CifarResNet(blocks=(blocks, blocks, blocks), **fields)


def _resnet34(image_shape: ImageShape, **fields: Any) -> ImageClassifier:
    del image_shape
    return CifarResNet(blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), projection=True, **fields)


def _small_vit(image_shape: ImageShape, **fields: Any) -> ImageClassifier:
    model = VisionTransformer(**fields)
    height, width, _ = image_shape
    if height % model.patch or width % model.patch:
        raise UsageError(
            f"small_vit's images were {height}x{width}, "
            f"must have sides that are multiples of {model.patch}"
        )
    return model


def _imagenet_resnet(
    blocks: tuple[int, ...], *, image_shape: ImageShape, **fields: Any
) -> ImageClassifier:
    del image_shape
    return ResNet(blocks=blocks, **fields)


def _mlp(image_shape: ImageShape, **fields: Any) -> ImageClassifier:
    del image_shape
    return MLP(**fields)


_IMAGENET: dict[str, Callable[..., ImageClassifier]] = {
    "resnet10": partial(_imagenet_resnet, (1, 1, 1, 1), bottleneck=False),
    "resnet50": partial(_imagenet_resnet, (3, 4, 6, 3)),
    "resnet101": partial(_imagenet_resnet, (3, 4, 23, 3)),
    "resnet152": partial(_imagenet_resnet, (3, 8, 36, 3)),
    "resnext50_32x4d": partial(_imagenet_resnet, (3, 4, 6, 3), groups=32, width_per_group=4),
}
_MODELS: dict[str, Callable[..., ImageClassifier]] = {
    **{f"resnet{6 * n + 2}": partial(_resnet, n) for n in (3, 5, 7, 9, 18)},
    **{f"resnet{6 * n + 2}_gn": partial(_resnet, n, norm="group") for n in (3, 5)},
    "resnet34": _resnet34,
    **_IMAGENET,
    "small_vit": _small_vit,
    "small_conv": _small_conv,
    "mlp": _mlp,
}


def create_model(
    name: str,
    num_classes: int,
    *,
    classifier: str = "linear",
    dtype: jnp.dtype | type = jnp.float32,
    image_shape: ImageShape,
    cosine_scale: float = 1.0,
    remat: bool = False,
    frozen_trunk_norm: bool = False,
    adaptation: Adaptation | None = None,
) -> ImageClassifier:
    """Builds a network by name.

    Args:
        name: "resnet20", "resnet32", "resnet44", "resnet56", "resnet110" (the CIFAR ResNets),
            "resnet20_gn", "resnet32_gn" (with group norm), "resnet34" (ImageNet's widths with a 3x3
            stem), "resnet10", "resnet50", "resnet101", "resnet152", "resnext50_32x4d" (ImageNet's),
            "small_vit", "small_conv" or "mlp"; or a vision tower, see `tower_config`.
        num_classes: Number of logits.
        classifier: "linear", "cosine", "scaled_linear" (LWS) or "nearest_class_mean" (NCM).
        dtype: Type in which the backbone computes; parameters and logits are float32.
        image_shape: (height, width, channels) of one image.
        cosine_scale: See `ImageClassifier`.
        remat: See `ResNet`; of ImageNet's networks and vision towers alone.
        frozen_trunk_norm: See `ResNet`; of ImageNet's networks alone.
        adaptation: How a vision tower is adapted, by LIFT's rank where it has none; None for its
            fine-tuning in full.

    Raises:
        UsageError: `name` or `classifier` is unknown, the images do not fit the network, or it has
            no such choice.
    """
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "classifier": classifier,
        "cosine_scale": cosine_scale,
        "dtype": dtype,
    }
    if names_tower(name) and not frozen_trunk_norm:
        config = tower_config(name, image_shape)
        adaptation = (adaptation or Adaptation(("full",))).with_rank(
            num_classes, config.num_hidden_layers
        )
        return ClipClassifier(config=config, adaptation=adaptation, remat=remat, **fields)
    if not names_tower(name) and name not in _MODELS:
        raise UsageError(
            f"model was {name!r}, must be one of {', '.join(_MODELS)}, clip:SNAPSHOT, "
            "dinov2:SNAPSHOT or random:SIZE"
        )
    if adaptation is not None:
        raise UsageError(f"model was {name!r}, must be a vision tower to be adapted")
    if name in _IMAGENET:
        fields |= {"remat": remat, "frozen_trunk_norm": frozen_trunk_norm}
    elif remat or frozen_trunk_norm:
        what = "remat" if remat else "batch norm that is frozen below the last block"
        raise UsageError(f"model was {name!r}, must be one of {', '.join(_IMAGENET)} with {what}")
    return _MODELS[name](image_shape=image_shape, **fields)
