"""Networks by the names that flags choose them by."""

from typing import Any

import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.resnet import IMAGENET, ResNet
from jaxlt.models.networks.resnet_cifar import CifarResNet
from jaxlt.models.networks.small import MLP, SmallConvNet, patch_for
from jaxlt.models.networks.vit import VisionTransformer, check_patches

_CIFAR: dict[str, dict[str, Any]] = {
    "resnet8": {"blocks": (1, 1, 1)},
    "resnet20": {"blocks": (3, 3, 3)},
    "resnet32": {"blocks": (5, 5, 5)},
    "resnet44": {"blocks": (7, 7, 7)},
    "resnet56": {"blocks": (9, 9, 9)},
    "resnet110": {"blocks": (18, 18, 18)},
    "resnet20_gn": {"blocks": (3, 3, 3), "norm": "group"},
    "resnet32_gn": {"blocks": (5, 5, 5), "norm": "group"},
    # Of ImbSAM's and SSE-SAM's code.
    "resnet34": {"blocks": (3, 4, 6, 3), "widths": (64, 128, 256, 512), "projection": True},
}
_NAMES = (*_CIFAR, *IMAGENET, "small_vit", "small_conv", "mlp")


def create_model(
    name: str,
    num_classes: int,
    *,
    classifier: str = "linear",
    dtype: jnp.dtype | type = jnp.float32,
    image_shape: tuple[int, int, int],
    cosine_scale: float = 1.0,
    remat: bool = False,
    frozen_backbone_norm: bool = False,
    adaptation: EncoderAdaptation | None = None,
) -> ImageClassifier:
    """Builds a network by name.

    Args:
        name: A CIFAR ResNet ("resnet8", "resnet20" and so on to "resnet110"; "resnet20_gn" and
            "resnet32_gn" with group norm), "resnet34" (ImageNet's widths with a 3x3 stem), one of
            ImageNet's ("resnet10", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"),
            "small_vit", "small_conv", "mlp" or an encoder (`encoder_config`).
        num_classes: Number of logits.
        classifier: "linear", "cosine", "scaled_linear" (LWS) or "nearest_class_mean" (NCM).
        dtype: Type in which the backbone computes; parameters and logits are float32.
        image_shape: (height, width, channels) of one image.
        cosine_scale: See `ImageClassifier`.
        remat: See `ResNet`; for ImageNet's networks and image encoders.
        frozen_backbone_norm: See `ResNet`; for ImageNet's networks.
        adaptation: Of an image encoder, with LIFT's rank where it has none; None trains all.

    Raises:
        UsageError: `name` or `classifier` is unknown, the images do not fit the network, or it has
            no such choice.

    Example:
        >>> import jax, jaxlt.models as models
        >>> model = models.create_model("mlp", 10, image_shape=(8, 8, 1))
        >>> images = jax.numpy.zeros((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> model.apply(variables, images, train=False).shape
        (4, 10)
    """
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "classifier": classifier,
        "cosine_scale": cosine_scale,
        "dtype": dtype,
    }
    is_encoder = ":" in name
    if is_encoder and not frozen_backbone_norm:
        from jaxlt.models.clip.image_encoders import create_encoder

        return create_encoder(name, image_shape, adaptation, remat=remat, **fields)
    if not is_encoder and name not in _NAMES:
        raise UsageError(
            f"model must be one of {', '.join(_NAMES)}, clip:SNAPSHOT, dinov2:SNAPSHOT, "
            f"vit:FILE or random:SIZE, got {name!r}"
        )
    if adaptation is not None:
        raise UsageError(f"model must be an image encoder to be adapted, got {name!r}")
    if name in IMAGENET:
        fields |= {"remat": remat, "frozen_backbone_norm": frozen_backbone_norm}
        return ResNet(**IMAGENET[name], **fields)
    if remat or frozen_backbone_norm:
        what = "remat" if remat else "batch norm that is frozen below the last block"
        raise UsageError(f"model must be one of {', '.join(IMAGENET)} with {what}, got {name!r}")
    if name == "small_vit":
        check_patches(image_shape)
        return VisionTransformer(**fields)
    if name == "small_conv":
        return SmallConvNet(patch=patch_for(image_shape), **fields)
    return MLP(**fields) if name == "mlp" else CifarResNet(**_CIFAR[name], **fields)
