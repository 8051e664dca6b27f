"""What a run's directory says of its network, and what predictions need beside its checkpoint."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import jax
import jax.numpy as jnp
import msgspec
from flax.traverse_util import flatten_dict, unflatten_dict
from msgspec import Meta

from jaxlt.data import Resize
from jaxlt.errors import UsageError
from jaxlt.files.json_files import write_json
from jaxlt.files.typed_json import read_typed
from jaxlt.models import ImageClassifier, create_model
from jaxlt.models.adaptation.kinds import Adaptation

# More pixels or classes than any network has; shapes beyond would not be shapes of arrays.
_Side = Annotated[int, Meta(ge=1, le=1 << 20)]
_Statistic = Annotated[float, Meta(ge=-1e6, le=1e6)]


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of a run's `model.json`: what to build and how to normalise its images."""

    model: str
    adaptation: Adaptation | None = None
    pretrained: str | None = None
    num_classes: _Side
    classifier: str
    precision: Literal["float32", "bfloat16"]
    image_shape: tuple[_Side, _Side, _Side]
    mean: tuple[_Statistic, ...]
    std: tuple[_Statistic, ...]
    class_names: tuple[str, ...]
    # Those of earlier versions do not say these.
    resize: Resize = "stretch"
    class_numbers: tuple[int, ...] = ()
    cosine_scale: float = 1.0

    def __post_init__(self):
        channels, numbers = self.image_shape[-1], self.class_numbers
        permutation = not numbers or sorted(numbers) == list(range(self.num_classes))
        for name, holds, need in (
            ("mean", len(self.mean) == channels, "a number a channel"),
            ("std", len(self.std) == channels and 0 not in self.std, "a number a channel"),
            ("class_numbers", permutation, "nothing or a permutation of the classes"),
            ("cosine_scale", 0 < self.cosine_scale < math.inf, "a positive number"),
            ("class_names", len(self.class_names) == self.num_classes, "a name a class"),
        ):
            if not holds:
                raise UsageError(f"{name} must be {need}, got {getattr(self, name)!r:.80}")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads `model.json`.

        Raises:
            UsageError: it is missing, or of another form.
        """
        return read_typed(path, cls)

    def write(self, path: Path) -> None:
        """Writes `model.json`."""
        write_json(path, msgspec.to_builtins(self))

    def network(self) -> ImageClassifier:
        """Builds the network."""
        return create_model(
            self.model,
            self.num_classes,
            classifier=self.classifier,
            dtype=jnp.dtype(self.precision),
            image_shape=self.image_shape,
            cosine_scale=self.cosine_scale,
            adaptation=self.adaptation,
        )

    def shapes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the shapes of the variables that were trained, and of the frozen parameters."""
        images = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
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
        from jaxlt.models.clip.image_encoders import encoder_digest, load_encoder

        if (found := encoder_digest(self.model)) != self.pretrained:
            raise UsageError(
                f"model {self.model} must be the one that the run was trained on, of "
                f"{self.pretrained}, its files are of {found}"
            )
        _, shapes = self.shapes()
        if not shapes:
            return {}
        encoder = flatten_dict({"vision_model": load_encoder(self.model, self.image_shape).params})
        return unflatten_dict({path: encoder[path] for path in flatten_dict(shapes)})
