"""Image encoders: vision transformers, pretrained or not, with an adaptation and a classifier."""

from typing import Any, Literal, TypeAlias

import msgspec

from jaxlt.recipes.network.file_digests import file_digests
from jaxlt.recipes.network.network import Network
from jaxlt.recipes.part import Count, Part, own_fields, part_name

ENSEMBLE = "ensemble"

Added: TypeAlias = Literal["adaptformer", "adapter", "lora", "vpt_shallow", "vpt_deep", "ssf"]
AdaptationKind: TypeAlias = Literal["full", "linear_probe", Added, "bias", "layer_norm", "partial"]
Projection: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class Adaptation(Part, frozen=True):
    """What of an image encoder is trained beside the classifier."""

    kinds: tuple[AdaptationKind, ...] = ("full",)
    """All (full), nothing (linear_probe), or modules that are added (adaptformer, adapter, lora,
    vpt_shallow, vpt_deep, ssf) and parts of its own (bias, layer_norm, partial: last blocks)."""
    rank: Count | None = None
    """adaptformer, adapter, lora: width of the bottleneck; none for LIFT's rule. That is the power
    of two below classes / (2 blocks), at least 1."""
    lora_projections: tuple[Projection, ...] = ("q_proj", "v_proj")
    """lora: the layers of each block that it changes."""
    prompt_length: Count = 10
    """vpt_shallow, vpt_deep: learned tokens."""
    last_blocks: Count = 1
    """partial: blocks that are trained."""

    def build(self) -> Any:
        """Returns the `jaxlt.models` adaptation; UsageError if kinds do not go together."""
        from jaxlt.models.adaptation.kinds import EncoderAdaptation

        return EncoderAdaptation(**msgspec.structs.asdict(self))


class Encoder(Network, frozen=True):
    """A vision transformer with an adaptation and a classifier."""

    adaptation: Adaptation = Adaptation()
    """What is trained beside the classifier."""
    classifier_init: Literal["random", "text", "class_mean"] = "random"
    """text: what CLIP makes of texts that name the classes. class_mean: the classes' mean features
    in the untouched encoder."""
    class_names: str | None = None
    """text: file that says classes in words, see `read_names`. Each line has what the data set
    calls a class, and the words; none where the data set says it in words."""
    prompt: str = "a photo of a {}."
    """text: the text, with {} for the class; ensemble for OpenAI's 80."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, more work. Not on CPUs."""

    def __post_init__(self):
        super().__post_init__()
        unnamed = self.classifier_init == "text" or self.class_names is None
        self.check("class_names", unnamed, "none without classifier_init text")
        holds = self.prompt == ENSEMBLE or self.prompt.count("{}") == 1
        self.check("prompt", holds, f"{ENSEMBLE} or a text with one {{}}")

    @property
    def label(self) -> str:  # noqa: D102
        return f"{part_name(self)}:{getattr(self, own_fields(type(self))[0])}"

    def adapted(self):  # noqa: D102
        return self.adaptation.build()

    def initial_weights(self, source, pipelines):  # noqa: D102
        from jaxlt.recipes.initial_weights import of_encoder

        return of_encoder(self, source, pipelines)

    def pretrained(self) -> str:  # noqa: D102
        from jaxlt.models.clip.image_encoders import encoder_digest

        return encoder_digest(self.label)

    def contents(self):  # noqa: D102
        snapshot = own_fields(type(self))[0]
        return {snapshot: self.pretrained(), **file_digests(self, "class_names")}


class Clip(Encoder, frozen=True, tag="clip"):
    """CLIP's image encoder."""

    snapshot: str = "openai/clip-vit-base-patch16"
    """Hugging Face's: a directory, or a name on the hub. It is known by its contents."""


class DINOv2(Encoder, frozen=True, tag="dinov2"):
    """DINOv2's image encoder."""

    snapshot: str = "facebook/dinov2-small"
    """Hugging Face's: a directory, or a name on the hub. It is known by its contents."""


class ViT(Encoder, frozen=True, tag="vit"):
    """A plain vision transformer of timm's, such as LIFT's ViT-B/16 of ImageNet-21k."""

    snapshot: str = "timm/vit_base_patch16_224.augreg_in21k"
    """File or directory of safetensors in timm's names, or a name on the hub. It is known by its
    contents."""


class RandomEncoder(Encoder, frozen=True, tag="random"):
    """An image encoder that is not pretrained, for trials."""

    size: Literal["tiny", "vit_b32", "vit_b16", "vit_l14"] = "tiny"
    """Its size."""
