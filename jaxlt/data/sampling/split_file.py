"""Reading the file by which a colleague trains on the same images."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from jaxlt.data.sampling.long_tail import SPLIT_FORMAT, Split, labels_digest
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json, read_utf8

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _SplitFile(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["jaxlt split 1"]
    source: str
    num_images: int
    labels_sha256: str
    profile: str
    imbalance_factor: int | float
    rule: str
    seed: int
    class_counts: tuple[_Int64, ...]
    indices: list[_Int64]


def read_split(path: Path, source: Source) -> Split:
    """Reads a split and checks that it belongs to the source, see `Split.read`."""
    try:
        record = msgspec.convert(parse_json(read_utf8(path)), _SplitFile)
    except OSError as error:
        raise UsageError(f"split file {path} must be readable: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f"split file {path} must be JSON of the format {SPLIT_FORMAT!r}: {error}"
        ) from error
    values = msgspec.structs.asdict(record)
    del values["format"]
    split = Split(**{**values, "indices": np.array(record.indices, np.int64)})
    if need := _unmet(split, source):
        raise UsageError(f"split file {path} must {need}")
    return split


def _unmet(split: Split, source: Source) -> str | None:
    """Says what a split lacks to be one of a source's."""
    labels, num_classes = source.train.labels, source.num_classes
    made_from = (split.num_images, len(split.class_counts), split.labels_sha256)
    if made_from != (len(labels), num_classes, labels_digest(labels)):
        return (
            f"be made from {source.name} ({len(labels)} images of {num_classes} classes) or a copy "
            f"with the same labels, got one made from {split.source} ({split.num_images} images of "
            f"{len(split.class_counts)} classes)"
        )
    indices = split.indices
    if indices.size == 0 or indices.min() < 0 or indices.max() >= len(labels):
        return f"have indices in 0..{len(labels) - 1}, got others or none"
    if len(np.unique(indices)) < len(indices):
        return "have each index once, got one twice"
    counts = np.bincount(labels[indices], minlength=num_classes)
    if tuple(counts.tolist()) != split.class_counts:
        return "have the class counts that its indices give, got others"
    return None
