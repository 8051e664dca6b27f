"""The network of a recipe: its backbone, classifier, weights and precision."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jaxlt.recipes.part import Choice, Count, Part, Positive, check, own_fields, part_name

ENSEMBLE = "ensemble"


class Linear(Choice, frozen=True, tag="linear"):
    """An affine last layer."""


class Cosine(Choice, frozen=True, tag="cosine"):
    """A last layer of normalised features and weights, as LDAM needs."""

    scale: Positive = 1.0
    """Constant factor on the cosines; 1 with ldam and gcl, which have their own."""


class Network(Choice, frozen=True):
    """A backbone with a classifier."""

    classifier: Linear | Cosine = Linear()
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
        frozen_trunk_norm: bool = False,
    ) -> Any:
        """Builds the network.

        Args:
            num_classes: C.
            image_shape: height, width, channels.
            head: kind of classifier in place of the recipe's, see `create_model`.
            frozen_trunk_norm: see there.

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
            frozen_trunk_norm=frozen_trunk_norm,
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
            source: the data, for class names and the images' shape.
            pipelines: its `InputPipelines`, for class means.

        Raises:
            UsageError: files are missing or do not fit.
        """
        del source, pipelines
        return {}

    def pretrained(self) -> str | None:
        """Returns a digest of the pretrained parameters that checkpoints leave out."""

    def contents(self) -> dict[str, str]:
        """Returns what the files that the network begins with hold, by field.

        Raises:
            UsageError: such a file cannot be read.
        """
        return {}


class Backbone(Network, frozen=True):
    """A network that may begin with weights of a file."""

    weights: str | None = None
    """File of PyTorch weights to begin with: safetensors, .pth or .pt, under torchvision's names.
    Its classifier is used if it has this one's kind and number of classes."""
    last_block_weights: bool = True
    """false leaves the last block as it was drawn (MiSLAS and GCL on Places-LT)."""

    def __post_init__(self):
        super().__post_init__()
        holds = self.last_block_weights or self.weights is not None
        check("last_block_weights", self.last_block_weights, holds, "true without weights")

    def initial_weights(self, source, pipelines):  # noqa: D102 (see Network, as below)
        if self.weights is None:
            return {}
        from jaxlt.recipes.initial_weights import of_file

        return of_file(self, self.weights, source)

    def contents(self):  # noqa: D102
        return _digests(self, "weights")


class Small(Backbone, frozen=True, tag="small"):
    """A network for small images, from random weights."""

    architecture: Literal[
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
        "resnet20_gn",
        "resnet32_gn",
        "resnet34",
        "small_vit",
        "small_conv",
        "mlp",
    ] = "resnet32"
    """The CIFAR ResNets (_gn: with group norm), resnet34 with a 3x3 stem, or small ones."""

    @property
    def label(self) -> str:  # noqa: D102
        return self.architecture


class ImageNetResNet(Backbone, frozen=True, tag="imagenet_resnet"):
    """A ResNet for images of 224 pixels."""

    architecture: Literal["resnet10", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"] = (
        "resnet50"
    )
    """Which."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, more work. Not on CPUs."""

    @property
    def label(self) -> str:  # noqa: D102
        return self.architecture


AdaptationKind: TypeAlias = Literal[
    "full",
    "linear_probe",
    "adaptformer",
    "adapter",
    "lora",
    "vpt_shallow",
    "vpt_deep",
    "ssf",
    "bias",
    "layer_norm",
    "partial",
]
Projection: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class Adaptation(Part, frozen=True):
    """What of an image encoder is trained beside the classifier."""

    kinds: tuple[AdaptationKind, ...] = ("full",)
    """All (full), nothing (linear_probe), or modules that are added (adaptformer, adapter, lora,
    vpt_shallow, vpt_deep, ssf) and parts of its own (bias, layer_norm, partial: last blocks)."""
    rank: Count | None = None
    """adaptformer, adapter, lora: width of the bottleneck; none for LIFT's rule, the power of two
    below classes / (2 blocks), at least 1."""
    lora_projections: tuple[Projection, ...] = ("q_proj", "v_proj")
    """lora: the layers of each block that it changes."""
    prompt_length: Count = 10
    """vpt_shallow, vpt_deep: learned tokens."""
    last_blocks: Count = 1
    """partial: blocks that are trained."""

    def build(self) -> Any:
        """Returns the adaptation as `jaxlt.models` takes it.

        Raises:
            UsageError: kinds do not go together.
        """
        from jaxlt.models.adaptation.kinds import Adaptation as Adapted

        return Adapted(
            self.kinds, self.rank, self.lora_projections, self.prompt_length, self.last_blocks
        )


class Encoder(Network, frozen=True):
    """A vision transformer with an adaptation and a classifier."""

    adaptation: Adaptation = Adaptation()
    """What is trained beside the classifier."""
    classifier_init: Literal["random", "text", "class_mean"] = "random"
    """text: what CLIP makes of texts that name the classes. class_mean: the classes' mean features
    in the untouched encoder."""
    class_names: str | None = None
    """text: file that says what classes are in words, each with what the data set calls it, see
    `read_names`; none where the data set says it in words."""
    prompt: str = "a photo of a {}."
    """text: the text, with {} for the class; ensemble for OpenAI's 80."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, more work. Not on CPUs."""

    def __post_init__(self):
        super().__post_init__()
        texts = self.classifier_init == "text"
        need = "none without classifier_init text"
        check("class_names", self.class_names, texts or self.class_names is None, need)
        holds = self.prompt == ENSEMBLE or self.prompt.count("{}") == 1
        check("prompt", self.prompt, holds, f"{ENSEMBLE} or a text with one {{}}")

    @property
    def label(self) -> str:  # noqa: D102
        return f"{part_name(self)}:{getattr(self, own_fields(type(self))[0])}"

    def adapted(self):  # noqa: D102
        return self.adaptation.build()

    def initial_weights(self, source, pipelines):  # noqa: D102
        from jaxlt.recipes.initial_weights import of_encoder

        return of_encoder(self, source, pipelines)

    def pretrained(self):  # noqa: D102
        from jaxlt.models.clip.image_encoders import encoder_digest

        return encoder_digest(self.label)

    def contents(self):  # noqa: D102
        from jaxlt.models.clip.image_encoders import encoder_digest

        snapshot = own_fields(type(self))[0]
        return {snapshot: encoder_digest(self.label), **_digests(self, "class_names")}


class Clip(Encoder, frozen=True, tag="clip"):
    """CLIP's image encoder."""

    snapshot: str = "openai/clip-vit-base-patch16"
    """Directory in Hugging Face's format, or a name on its hub; known by its contents."""


class DINOv2(Encoder, frozen=True, tag="dinov2"):
    """DINOv2's image encoder."""

    snapshot: str = "facebook/dinov2-small"
    """Directory in Hugging Face's format, or a name on its hub; known by its contents."""


class RandomEncoder(Encoder, frozen=True, tag="random"):
    """An image encoder that is not pretrained, for trials."""

    size: Literal["tiny", "vit_b32", "vit_b16", "vit_l14"] = "tiny"
    """Its size."""


if TYPE_CHECKING:
    AnyNetwork: TypeAlias = Network
else:
    AnyNetwork = Small | ImageNetResNet | Clip | DINOv2 | RandomEncoder


def _digests(part: Network, name: str) -> dict[str, str]:
    from jaxlt.files.file_digest import file_digest

    path = getattr(part, name)
    return {} if path is None else {name: f"sha256:{file_digest(name, Path(path))}"}
