"""A recipe: every number that a run depends on, as data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from experiments.stage import Stage, check
from jaxlt import UsageError
from jaxlt.data import Normalization, Profile, Relabel, Resize, Unreadable
from jaxlt.files.typed_values import check_fields
from jaxlt.models.adaptation.kinds import Adaptation, Kind, Projection, names_tower

ENSEMBLE = "ensemble"
# Losses with a scale of their own.
_SCALING = ("ldam", "gcl")


@dataclasses.dataclass(frozen=True)
class Recipe(Stage):
    """Data, network, first stage and further stages of a run."""

    dataset: str = "tfds:cifar10"
    """digits, idx:DIR, tfds:NAME, folder:DIR, list:ROOT,LISTS or tfds:NAME,LISTS. LISTS are list
    files: TRAIN or TRAIN,TEST or TRAIN,VAL,TEST or TRAIN,VAL,TEST,OPEN."""
    image_size: int | None = None
    """Side in pixels that images are resized to; None keeps them (folder, list: 32)."""
    resize: Resize = "stretch"
    """How image files are resized where they are not cropped at random. stretch: to a square.
    centre_crop: the shorter side to 8/7 of image_size, of which the middle is taken."""
    normalization: Normalization = "dataset"
    """Mean and standard deviation of pixels: the data set's own, or those published."""
    relabel: Relabel = "none"
    """by_size numbers the classes by their training images, the largest first, as MiSLAS and
    Saddle-LongTail do."""
    unreadable: Unreadable = "error"
    """What is done about an image file that cannot be decoded. skip: in training the next image
    of its class takes its place, and the log tells of each; in evaluation it does not count, and
    the result tells how many they were."""
    evaluated: Literal["test", "val"] = "test"
    """Images that are evaluated: the test set, or the validation set of a source that has one."""
    tte: int | None = None
    """Test-time ensembling, LIFT's: evaluated images are resized to so many pixels more than
    image_size (24, or 21 for patches of 14), and logits are the mean over five crops, corners and
    centre. None for one look at the whole image."""
    profile: Profile = "exponential"
    """Shape of the class counts from head to tail. native: all images, as many as there are."""
    imbalance_factor: float = 100.0
    """Images of the largest class over images of the smallest, at least 1."""
    max_per_class: int | None = None
    """Images of the largest class; None for as many as every class has."""
    class_order: tuple[int, ...] | None = None
    """Classes from head to tail; None for 0, 1, 2, ..."""
    selection: Literal["shuffled", "first"] = "shuffled"
    """Which images of a class: those that LDAM-DRW's shuffle leaves first, or the first."""
    split_seed: int = 0
    """Seed of the selection."""
    split_file: str | None = None
    """File with the selected images: read if it exists, else written. Replaces the six above."""
    held_out: int = 0
    """Evaluate so many training images of each class, none of which is in the split, in place of
    the test images: to choose hyperparameters by. 0 evaluates the test images."""

    model: str = "resnet32"
    """resnet20/32/44/56/110 (CIFAR ResNets), resnet20_gn/32_gn (with group norm), resnet34 (3x3
    stem), resnet10/50/101/152 and resnext50_32x4d (ImageNet's), small_vit, small_conv or mlp; or
    a vision tower: clip:SNAPSHOT or dinov2:SNAPSHOT, a directory in Hugging Face's format or a name
    on its hub, known by its contents; random:tiny, vit_b32, vit_b16 or vit_l14, not pretrained."""
    adaptation: tuple[Kind, ...] = ("full",)
    """What of a vision tower is trained beside the classifier: all (full), nothing (linear_probe),
    or one or more of modules that are added (adaptformer, adapter, lora, vpt_shallow, vpt_deep,
    ssf) and parts of its own (bias, layer_norm, partial: the last blocks)."""
    adaptation_rank: int | None = None
    """adaptformer, adapter, lora: width of the bottleneck; None for LIFT's rule, the power of two
    below classes / (2 blocks), at least 1."""
    lora_projections: tuple[Projection, ...] = ("q_proj", "v_proj")
    """lora: the layers of each block that it changes."""
    prompt_length: int = 10
    """vpt_shallow, vpt_deep: learned tokens."""
    last_blocks: int = 1
    """partial: blocks that are trained."""
    classifier: Literal["linear", "cosine"] = "linear"
    """Last layer; cosine has normalised features and weights, as LDAM needs."""
    cosine_scale: float = 1.0
    """cosine: constant factor on the cosines; 1 with ldam and gcl, which have their own."""
    classifier_init: Literal["random", "text", "class_mean"] = "random"
    """Of a vision tower's classifier. text: what CLIP makes of texts that name the classes.
    class_mean: the classes' mean features in the untouched tower."""
    class_names: str | None = None
    """classifier_init text: file that says what classes are in words, each with what the data set
    calls it, see `read_names`. None where the data set says it in words."""
    prompt: str = "a photo of a {}."
    """classifier_init text: the text, with {} for the class; ensemble for OpenAI's 80 templates."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's computations; parameters and logits stay float32."""
    remat: bool = False
    """ImageNet's networks and vision towers: compute each block again in the backward pass in place
    of keeping what it computed. Less memory, about a third more work, the same results. Not on
    CPUs, whose compiler merges the two computations."""
    micro_batch: int | None = None
    """Gradient accumulation: images that pass through the network together. A step then needs
    memory for so many, takes about a third more work, and gives the batch's results but for
    rounding, with any method. None for the whole batch. Not with batch norm."""
    init_weights: str | None = None
    """File of PyTorch weights that the network begins with: safetensors, .pth or .pt, under
    torchvision's names. Its classifier is used if it has this one's kind and number of classes;
    everything else must match. A run is known by the file's contents, wherever it lies."""
    init_last_block: bool = True
    """init_weights: False leaves the last block as it was drawn (MiSLAS and GCL on Places-LT)."""

    many_above: int = 100
    """Classes with more training images are many-shot."""
    few_below: int = 20
    """Classes with fewer training images are few-shot; between the two they are medium-shot."""
    eval_epochs: int = 10
    """An evaluation and a checkpoint every so many epochs, and after the last."""

    then: tuple[Stage, ...] = ()
    """Stages after the first, each from the state that the one before ended in."""

    def __post_init__(self):
        """Refuses numbers that no run can have.

        Raises:
            UsageError: one of them is out of range.
        """
        super().__post_init__()
        check("kind", self.kind, self.kind == "train", "train in the first stage")
        check("eval_epochs", self.eval_epochs, self.eval_epochs >= 1, "at least 1")
        check("held_out", self.held_out, self.held_out >= 0, "at least 0")
        test = self.evaluated == "test"
        check("held_out", self.held_out, not self.held_out or test, "0 unless evaluated is test")
        for stage in self.stages[:-1]:
            check(
                "kind", stage.kind, stage.kind != "ncm", "train or tau_norm, ncm must be the last,"
            )
        check("learn_scale", self.learn_scale, not self.learn_scale, "off in the first stage")
        self._check_tower()
        self._check_cosine_scale()
        check(
            "init_last_block",
            self.init_last_block,
            self.init_last_block or self.init_weights is not None,
            "True without init_weights",
        )
        for before, stage in zip(self.heads, self.then, strict=False):
            for needs, heads, what in (
                (stage.kind == "tau_norm", ("linear",), "for tau_norm"),
                (stage.learn_scale, ("linear", "scaled_linear"), "where a scale is learned"),
                (stage.adversary != "none", ("linear", "cosine"), "with an adversary"),
            ):
                need = f"{' or '.join(heads)} {what}"
                check("classifier", before, not needs or before in heads, need)

    def _check_tower(self) -> None:
        self.adapted()
        tower = names_tower(self.model)
        for name, holds, need in (
            ("adaptation", tower or self.adaptation == ("full",), "full but for vision towers"),
            (
                "classifier_init",
                tower or self.classifier_init == "random",
                "random but for vision towers",
            ),
            ("init_weights", not tower or self.init_weights is None, "None for vision towers"),
            (
                "trainable",
                not tower or self.trainable == "all",
                "all, see adaptation",
            ),
            ("micro_batch", self.micro_batch is None or self.micro_batch >= 1, "at least 1"),
            ("tte", self.tte is None or self.tte >= 0, "at least 0"),
        ):
            check(name, getattr(self, name), holds, need)
        for stage in self.stages:
            partly = tower and self.adaptation != ("full",)
            norm = stage.spectral_norm
            check("spectral_norm", norm, not partly or norm != "all", "none or classifier")
        texts = self.classifier_init == "text"
        check(
            "class_names",
            self.class_names,
            texts or self.class_names is None,
            "None without classifier_init text",
        )
        place = self.prompt == ENSEMBLE or self.prompt.count("{}") == 1
        check("prompt", self.prompt, place, f"{ENSEMBLE} or a text with one {{}}")

    def _check_cosine_scale(self) -> None:
        scale = self.cosine_scale
        check("cosine_scale", scale, scale > 0, "positive")
        check("cosine_scale", scale, scale == 1 or self.classifier == "cosine", "1 without cosine")
        for stage in self.stages:
            check(
                "cosine_scale",
                scale,
                scale == 1 or stage.loss not in _SCALING,
                f"1 with {stage.loss}",
            )

    def adapted(self) -> Adaptation | None:
        """Returns how the vision tower is adapted; None for other networks.

        Raises:
            UsageError: kinds do not go together, or a number is out of range.
        """
        if not names_tower(self.model):
            return None
        return Adaptation(
            self.adaptation,
            self.adaptation_rank,
            self.lora_projections,
            self.prompt_length,
            self.last_blocks,
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The first stage, which is the recipe itself, and those after it."""
        return (self, *self.then)

    @property
    def heads(self) -> tuple[str, ...]:
        """The kind of classifier that the network has in each stage."""
        kinds, head = [], str(self.classifier)
        for stage in self.stages:
            if stage.learn_scale:
                head = "scaled_linear"
            if stage.kind == "ncm":
                head = "nearest_class_mean"
            kinds.append(head)
        return tuple(kinds)

    def shortened(self, epochs: int) -> Self:
        """Returns the recipe with a first stage of so many epochs and all else in proportion."""
        factor = epochs / self.epochs
        first = self.scaled(factor)
        return dataclasses.replace(first, then=tuple(stage.scaled(factor) for stage in self.then))

    def described(self) -> dict[str, Any]:
        """Returns all fields by name, those of later stages as `then.0.epochs`.

        In place of files of weights and of names stand their contents' SHA-256.

        Raises:
            UsageError: such a file cannot be read.
        """
        # Programs' help needs recipes and no networks.
        from jaxlt.files.file_digest import file_digest
        from jaxlt.models.clip.vision_towers import tower_digest

        fields = dataclasses.asdict(self)
        for name in ("init_weights", "class_names"):
            if fields[name] is not None:
                fields[name] = f"sha256:{file_digest(name, Path(fields[name]))}"
        if names_tower(self.model):
            fields["model"] = tower_digest(self.model)
        stages = fields.pop("then")
        later = {
            f"then.{number}.{name}": value
            for number, stage in enumerate(stages)
            for name, value in stage.items()
        }
        return {**fields, **later}

    def defaults(self) -> dict[str, Any]:
        """Returns what `described` would, were each field of each stage at its default.

        A default means what was done before there was the field, so that it stands for those that
        an earlier version's `recipe.json` lacks.
        """
        return Recipe(then=tuple(Stage() for _ in self.then)).described()


def read_stages(described: Mapping[str, Any], path: Path) -> tuple[Stage, ...]:
    """Rebuilds the stages of a recipe from what `Recipe.described` returned.

    Args:
        described: contents of a run's `recipe.json`, perhaps of an earlier version that had fewer
            fields.
        path: of the file, for messages.

    Raises:
        UsageError: it describes no stages.
    """
    stages, prefix = [], ""
    while f"{prefix}kind" in described:
        found = {field.name: prefix + field.name for field in dataclasses.fields(Stage)}
        fields: dict[str, Any] = {
            # JSON has lists for tuples.
            name: tuple(described[key]) if isinstance(described[key], list) else described[key]
            for name, key in found.items()
            if key in described
        }
        try:
            check_fields(fields, Stage)
            stages.append(Stage(**fields))
        except (TypeError, UsageError) as error:
            raise UsageError(f"{path} must describe the stages of a run: {error}") from error
        prefix = f"then.{len(stages) - 1}."
    if not stages or stages[0].kind != "train":
        raise UsageError(f"{path} must describe a first stage of kind train, it does not")
    return tuple(stages)
