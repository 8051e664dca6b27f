"""The ResNets for large images, and what is known of networks by the files they begin with."""

from typing import Literal, TypeAlias

from jaxlt.recipes.network.network import Backbone, Network

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


def file_digests(part: Network, name: str) -> dict[str, str]:
    """Returns what the file in a field holds, see `Network.contents`; none without a file.

    Of a directory of weights, or an index, it is what the digests of its files make.
    """
    from jaxlt.files.directory import expanded
    from jaxlt.files.foreign_files import file_digest, joint_digest

    place = getattr(part, name)
    if place is None:
        return {}
    path = expanded(place)
    if not (path.is_dir() or path.name.endswith(".index.json")):
        return {name: f"sha256:{file_digest(name, path)}"}
    from jaxlt.models.clip.snapshot import weights_of
    from jaxlt.models.weights.torch_files import files_of_weights

    files = files_of_weights(weights_of(path) if path.is_dir() else path)
    return {name: joint_digest(name, files)}
