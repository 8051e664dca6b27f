"""What all networks of a recipe have in common, and the networks for small images."""

from typing import Any, Literal, TypeAlias

from jaxlt.recipes.network.last_layer import CosineLayer, LinearLayer
from jaxlt.recipes.part import Choice, Count, part_name

GroupNormResNet: TypeAlias = Literal["resnet20_gn", "resnet32_gn"]
CifarResNet: TypeAlias = Literal[
    "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", GroupNormResNet
]
SmallArchitecture: TypeAlias = Literal[CifarResNet, "resnet34", "small_vit", "small_conv", "mlp"]


class Network(Choice, frozen=True):
    """A backbone with a classifier."""

    classifier: LinearLayer | CosineLayer = LinearLayer()
    """Last layer: linear or cosine."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's computations. Parameters and logits stay float32."""
    micro_batch: Count | None = None
    """Gradient accumulation: images that pass through the network together. none for the whole
    batch. Not with batch norm."""

    @property
    def label(self) -> str:
        """The name by which `jaxlt.models.create_model` calls it."""
        raise NotImplementedError

    def build(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        head: str | None = None,
        *,
        frozen_backbone_norm: bool = False,
    ) -> Any:
        """Builds the network.

        Args:
            num_classes: C.
            image_shape: height, width, channels.
            head: kind of classifier in place of the recipe's, see `create_model`.
            frozen_backbone_norm: see there.

        Raises:
            UsageError: the network cannot do what is asked for.
        """
        import jax.numpy as jnp

        from jaxlt.models import create_model

        return create_model(
            self.label,
            num_classes,
            classifier=head or part_name(self.classifier),
            dtype=jnp.dtype(self.precision),
            image_shape=image_shape,
            cosine_scale=self.cosine_scale,
            remat=getattr(self, "remat", False),
            frozen_backbone_norm=frozen_backbone_norm,
            adaptation=self.adapted(),
        )

    @property
    def cosine_scale(self) -> float:
        """The factor on the cosines, 1 for a linear classifier."""
        return getattr(self.classifier, "scale", 1.0)

    def adapted(self) -> Any:
        """Returns the `jaxlt.models` adaptation of an image encoder; None for other networks."""

    def initial_weights(self, source: Any, pipelines: Any) -> dict[str, Any]:
        """Returns variables that take the place of those drawn, see `jaxlt.training.make_state_fn`.

        Args:
            source: has the class names and the images' shape.
            pipelines: its `InputPipelines`, with the images for class means.

        Raises:
            UsageError: files are missing or do not fit.
        """
        return {}

    def pretrained(self) -> str | None:
        """Returns a digest of the pretrained parameters that checkpoints leave out."""

    def contents(self) -> dict[str, str]:
        """Returns what the files that the network begins with hold; UsageError if unreadable."""
        return {}


class Backbone(Network, frozen=True):
    """A network that may begin with weights of a file."""

    weights: str | None = None
    """PyTorch weights to begin with, under torchvision's names: a file, safetensors, .pth or .pt,
    or its directory. Their classifier is used if of this one's kind and number of classes."""
    last_block_weights: bool = True
    """false leaves the last block as it was drawn (MiSLAS and GCL on Places-LT)."""

    def __post_init__(self):
        super().__post_init__()
        holds = self.last_block_weights or self.weights is not None
        self.check("last_block_weights", holds, "true without weights")

    def initial_weights(self, source, pipelines):  # noqa: D102 (see Network, as below)
        if self.weights is None:
            return {}
        from jaxlt.recipes.initial_weights import of_file

        return of_file(self, self.weights, source.num_classes, source.image_shape)

    def contents(self):  # noqa: D102
        from jaxlt.recipes.network.file_digests import file_digests

        return {} if self.weights is None else file_digests(self, "weights")


class Small(Backbone, frozen=True, tag="small"):
    """A network for small images, from random weights."""

    architecture: SmallArchitecture = "resnet32"
    """The CIFAR ResNets (_gn: with group norm), resnet34 with a 3x3 stem, or small ones."""

    @property
    def label(self) -> str:  # noqa: D102
        return self.architecture
