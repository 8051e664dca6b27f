"""The network of a recipe: its backbone, classifier, weights and precision."""

from typing import TYPE_CHECKING, TypeAlias

from jaxlt.recipes.network.encoders import Adaptation as Adaptation
from jaxlt.recipes.network.encoders import Clip, DINOv2, RandomEncoder, ViT
from jaxlt.recipes.network.encoders import Encoder as Encoder
from jaxlt.recipes.network.imagenet import ImageNetResNet
from jaxlt.recipes.network.last_layer import CosineLayer as CosineLayer
from jaxlt.recipes.network.last_layer import LinearLayer as LinearLayer
from jaxlt.recipes.network.network import Network as Network
from jaxlt.recipes.network.network import Small

if TYPE_CHECKING:
    AnyNetwork: TypeAlias = Network
else:
    AnyNetwork = Small | ImageNetResNet | Clip | DINOv2 | ViT | RandomEncoder
