"""What a run's directory says of its network, and what predictions need beside its checkpoint."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.data import Resize
from jaxlt.errors import UsageError
from jaxlt.files.json_files import read_json
from jaxlt.files.typed_values import check_fields
from jaxlt.models import ImageClassifier, create_model
from jaxlt.models.adaptation.kinds import Adaptation
from jaxlt.models.clip.vision_towers import load_tower, tower_digest

# More pixels or classes than any network has; shapes beyond would not be shapes of arrays.
_LARGEST_SIDE = 1 << 20
_LARGEST_STATISTIC = 1e6


@dataclasses.dataclass(frozen=True)
class Description:
    """Contents of a run's `model.json`: what to build and how to normalise its images."""

    model: str
    num_classes: int
    classifier: str
    precision: Literal["float32", "bfloat16"]
    image_shape: list[int]
    mean: list[float]
    std: list[float]
    class_names: list[str]
    # Those of earlier versions do not say these.
    resize: Resize = "stretch"
    class_numbers: list[int] = dataclasses.field(default_factory=list)
    cosine_scale: float = 1.0
    adaptation: dict[str, Any] | None = None
    pretrained: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads `model.json`.

        Raises:
            UsageError: it is missing, or of another form.
        """
        values = read_json(path)
        fields = dataclasses.fields(cls)
        needed = {field.name for field in fields if _has_no_default(field)}
        if not needed <= set(values) <= {field.name for field in fields}:
            names = ", ".join(field.name for field in fields)
            raise UsageError(f"{path} must be an object with the keys {names}")
        try:
            check_fields(values, cls)
            description = cls(**values)
            # Refuses what it must not be.
            _ = description.adapted
        except (TypeError, UsageError) as error:
            raise UsageError(f"{path} must describe a network: {error}") from error
        description._check(path)
        return description

    def _check(self, path: Path) -> None:
        channels = self.image_shape[-1] if _are_counts(self.image_shape, 3) else 0
        numbers = self.class_numbers
        permutation = not numbers or sorted(numbers) == list(range(self.num_classes))
        for name, holds, need in (
            ("image_shape", channels, f"three positive integers, {_LARGEST_SIDE} at most,"),
            ("num_classes", _are_counts([self.num_classes], 1), "a positive integer"),
            ("mean", _are_numbers(self.mean, channels), "a number a channel"),
            ("std", _are_numbers(self.std, channels) and 0 not in self.std, "a number a channel"),
            ("class_numbers", permutation, "nothing or a permutation of the classes"),
            ("cosine_scale", 0 < self.cosine_scale < math.inf, "a positive number"),
            ("class_names", _are_names(self.class_names, self.num_classes), "a name a class"),
        ):
            if not holds:
                raise UsageError(f"{path} must have {need} as {name}, it has {getattr(self, name)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.image_shape
        return height, width, channels

    def network(self) -> ImageClassifier:
        """Builds the network."""
        return create_model(
            self.model,
            self.num_classes,
            classifier=self.classifier,
            dtype=jnp.dtype(self.precision),
            image_shape=self.shape,
            cosine_scale=self.cosine_scale,
            adaptation=self.adapted,
        )

    @property
    def adapted(self) -> Adaptation | None:
        """How the vision tower was adapted, None for other networks."""
        if self.adaptation is None:
            return None
        # JSON has lists for tuples.
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.adaptation.items()
        }
        check_fields(values, Adaptation)
        return Adaptation(**values)

    def shapes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the shapes of the variables that were trained, and of the frozen parameters."""
        images = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        network = self.network()
        init = jax.eval_shape(
            lambda key, images: network.init(key, images, train=False), jax.random.key(0), images
        )
        trained, frozen = network.split(init["params"])
        return {"params": trained, "batch_stats": init.get("batch_stats", {})}, frozen

    def frozen(self) -> dict[str, Any]:
        """Returns the frozen parameters, those of the pretrained network that was adapted.

        Raises:
            UsageError: it is not where it was, or another one is there.
        """
        if self.pretrained is None:
            return {}
        if (found := tower_digest(self.model)) != self.pretrained:
            raise UsageError(
                f"model {self.model} must be the one that the run was trained on, of "
                f"{self.pretrained}, its files are of {found}"
            )
        _, shapes = self.shapes()
        if not shapes:
            return {}
        tower = flatten_dict({"vision_model": load_tower(self.model, self.shape).params})
        return unflatten_dict({path: tower[path] for path in flatten_dict(shapes)})


def _are_counts(values: Any, length: int) -> bool:
    whole = isinstance(values, list) and all(
        type(one) is int and 0 < one <= _LARGEST_SIDE for one in values
    )
    return whole and len(values) == length


def _are_numbers(values: Any, length: int) -> bool:
    numbers = isinstance(values, list) and all(
        type(one) in (int, float) and abs(one) <= _LARGEST_STATISTIC for one in values
    )
    return numbers and len(values) == length


def _are_names(values: Any, num_classes: int) -> bool:
    names = isinstance(values, list) and all(isinstance(one, str) for one in values)
    return names and len(values) == num_classes


def _has_no_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing
