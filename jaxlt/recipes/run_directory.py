"""What a run's directory says of data and network: what they are known by, wherever they lie."""

import hashlib
import os
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from jaxlt.data import ImageSet, Source, Split
from jaxlt.files.directory import expanded
from jaxlt.recipes.data import Data
from jaxlt.runs.differences import SAMPLE
from jaxlt.runs.model_description import ModelDescription


def data_identity(data: Data, images: str, source: Source, split: Split) -> dict[str, Any]:
    """Returns the classes in order, and digests of trained and evaluated images, as JSON values.

    Of up to 8,192 images of either set, evenly spaced, the contents count; of all of them the label
    and the name below the directory that they have in common. `images` is "test" or "val".
    """
    evaluated, numbers = data.evaluated(source, split, images)
    numbers = np.arange(len(evaluated.labels)) if numbers is None else numbers
    return {
        "class_names": list(source.class_names),
        "train": known_by(source.train, split.indices),
        "evaluated": known_by(evaluated, numbers),
        "mean": list(map(float, source.mean)),
        "std": list(map(float, source.std)),
    }


def known_by(images: ImageSet, numbers: np.ndarray) -> dict[str, Any]:
    """Returns how many images of some numbers there are, and digests of them, as JSON values."""
    places = np.linspace(0, len(numbers) - 1, min(len(numbers), SAMPLE), dtype=np.int64)
    contents = (images.stored(number) for number in numbers[places].tolist())
    names = [images.names[number] for number in map(int, numbers)] if images.names else []
    root = os.path.commonprefix(names).rfind("/") + 1  # noqa: RUF071 (cut at a slash)
    return {
        "images": len(numbers),
        "labels": _digest(images.labels[numbers].astype("<i4").tobytes()),
        "names": _digest(os.fsencode(normalize("NFC", "\0".join(name[root:] for name in names)))),
        "contents": _digest(b"".join(hashlib.sha256(one).digest() for one in contents)),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def describe_in(directory: Path, recipe: Any, source: Source, split: Split) -> None:
    """Writes what later programs read of a run, beside its recipe."""
    named = recipe.data.split_file
    for file in (directory / "split.json", *([] if named is None else [expanded(named)])):
        if not file.exists():
            split.write(file)
    if (model_file := directory / "model.json").exists():
        return
    network = recipe.network
    description = ModelDescription(
        model=network.label,
        adaptation=network.adapted(),
        pretrained=network.pretrained(),
        num_classes=source.num_classes,
        classifier=recipe.heads[-1],
        precision=network.precision,
        image_shape=source.image_shape,
        mean=tuple(map(float, source.mean)),
        std=tuple(map(float, source.std)),
        class_names=tuple(source.class_names),
        resize=recipe.data.resize,
        class_numbers=tuple(map(int, source.class_numbers)),
        cosine_scale=network.cosine_scale,
    )
    description.write(model_file)
