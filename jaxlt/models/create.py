"""Networks by the names that flags choose them by."""

from typing import Any

import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.models.adaptation.kinds import Adaptation, names_encoder
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.resnet import ResNet
from jaxlt.models.networks.resnet_cifar import CifarResNet
from jaxlt.models.networks.small import MLP, SmallConvNet
from jaxlt.models.networks.vit import VisionTransformer

_IMAGENET: dict[str, dict[str, Any]] = {
    "resnet10": {"blocks": (1, 1, 1, 1), "bottleneck": False},
    "resnet50": {"blocks": (3, 4, 6, 3)},
    "resnet101": {"blocks": (3, 4, 23, 3)},
    "resnet152": {"blocks": (3, 8, 36, 3)},
    "resnext50_32x4d": {"blocks": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
}
_NETWORKS: dict[str, tuple[type[ImageClassifier], dict[str, Any]]] = {
    **{f"resnet{6 * n + 2}": (CifarResNet, {"blocks": (n, n, n)}) for n in (3, 5, 7, 9, 18)},
    **{
        f"resnet{6 * n + 2}_gn": (CifarResNet, {"blocks": (n, n, n), "norm": "group"})
        for n in (3, 5)
    },
    "resnet34": (
        CifarResNet,
        {"blocks": (3, 4, 6, 3), "widths": (64, 128, 256, 512), "projection": True},
    ),
    **{name: (ResNet, sizes) for name, sizes in _IMAGENET.items()},
    "small_vit": (VisionTransformer, {}),
    "small_conv": (SmallConvNet, {}),
    "mlp": (MLP, {}),
}


def create_model(
    name: str,
    num_classes: int,
    *,
    classifier: str = "linear",
    dtype: jnp.dtype | type = jnp.float32,
    image_shape: tuple[int, int, int],
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
            "small_vit", "small_conv" or "mlp"; or an image encoder, see `encoder_config`.
        num_classes: Number of logits.
        classifier: "linear", "cosine", "scaled_linear" (LWS) or "nearest_class_mean" (NCM).
        dtype: Type in which the backbone computes; parameters and logits are float32.
        image_shape: (height, width, channels) of one image.
        cosine_scale: See `ImageClassifier`.
        remat: See `ResNet`; for ImageNet's networks and image encoders.
        frozen_trunk_norm: See `ResNet`; for ImageNet's networks.
        adaptation: How an image encoder is adapted. LIFT's rank is taken where it has none; None
            trains all parameters.

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
    if names_encoder(name) and not frozen_trunk_norm:
        from jaxlt.models.clip.image_encoders import encoder_config
        from jaxlt.models.clip.model import ClipClassifier

        config = encoder_config(name, image_shape)
        adaptation = (adaptation or Adaptation(("full",))).with_rank(
            num_classes, config.num_hidden_layers
        )
        return ClipClassifier(config=config, adaptation=adaptation, remat=remat, **fields)
    if not names_encoder(name) and name not in _NETWORKS:
        raise UsageError(
            f"model must be one of {', '.join(_NETWORKS)}, clip:SNAPSHOT, dinov2:SNAPSHOT or "
            f"random:SIZE, got {name!r}"
        )
    if adaptation is not None:
        raise UsageError(f"model must be an image encoder to be adapted, got {name!r}")
    if name in _IMAGENET:
        fields |= {"remat": remat, "frozen_trunk_norm": frozen_trunk_norm}
    elif remat or frozen_trunk_norm:
        what = "remat" if remat else "batch norm that is frozen below the last block"
        raise UsageError(f"model must be one of {', '.join(_IMAGENET)} with {what}, got {name!r}")
    network, sizes = _NETWORKS[name]
    if network is SmallConvNet:
        sizes = {"patch": _small_conv_patch(image_shape)}
    elif network is VisionTransformer:
        _check_patches(image_shape)
    return network(**sizes, **fields)


def _small_conv_patch(image_shape: tuple[int, int, int]) -> int:
    """Returns the largest patch that leaves the convolutions at least 4x4 positions."""
    height, width, _ = image_shape
    if min(height, width) < 4:
        raise UsageError(f"images of small_conv must be at least 4x4, got {height}x{width}")
    return next(
        patch
        for patch in (4, 2, 1)
        if height % patch == width % patch == 0 and min(height, width) // patch >= 4
    )


def _check_patches(image_shape: tuple[int, int, int]) -> None:
    height, width, _ = image_shape
    if height % VisionTransformer.patch or width % VisionTransformer.patch:
        raise UsageError(
            f"images of small_vit must have sides that are multiples of {VisionTransformer.patch}, "
            f"got {height}x{width}"
        )
