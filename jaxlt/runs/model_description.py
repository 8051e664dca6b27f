"""What a run's directory says of its network, in `model.json`."""

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from jaxlt.data import Resize
from jaxlt.errors import UsageError
from jaxlt.files.directory import write_json
from jaxlt.models.adaptation.kinds import EncoderAdaptation

# More pixels or classes than any network has; shapes beyond would not be shapes of arrays.
_Side = Annotated[int, Meta(ge=1, le=1 << 20)]
_Statistic = Annotated[float, Meta(ge=-1e6, le=1e6)]


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of a run's `model.json`: what to build and how to normalize its images."""

    model: str
    adaptation: EncoderAdaptation | None = None
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

    def write(self, path: Path) -> None:
        """Writes `model.json`."""
        write_json(path, msgspec.to_builtins(self))
