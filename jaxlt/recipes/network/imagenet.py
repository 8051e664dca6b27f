"""The ResNets for large images."""

from typing import Literal, TypeAlias

from jaxlt.recipes.network.network import Backbone

ImageNetArchitecture: TypeAlias = Literal[
    "resnet10", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"
]


class ImageNetResNet(Backbone, frozen=True, tag="imagenet_resnet"):
    """A ResNet for images of 224 pixels."""

    architecture: ImageNetArchitecture = "resnet50"
    """Which."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, more work. Not on CPUs."""

    @property
    def label(self) -> str:  # noqa: D102
        return self.architecture
