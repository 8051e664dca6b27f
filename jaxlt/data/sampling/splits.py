"""Long-tailed splits, and the file by which a colleague trains on the same images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from jaxlt.data.sampling.long_tail import (
    Profile,
    SelectionRule,
    long_tailed_counts,
    refuse_empty_class,
    select_images,
)
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json, read_utf8

_FORMAT = "jaxlt split 1"
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The training images that a long-tailed experiment uses.

    Attributes:
        source: name of the source it was made from, for the record: a copy of the same data
            elsewhere serves as well.
        num_images: training images of the whole source.
        labels_sha256: digest of their labels, see `labels_digest`.
        profile: long-tailed profile it was made by.
        imbalance_factor: imbalance factor it was made by.
        rule: rule by which the images were selected.
        seed: seed of that rule.
        class_counts: images kept of each class, by label.
        indices: int64 array (sum(class_counts),), the images kept, without repetition.
    """

    source: str
    num_images: int
    labels_sha256: str
    profile: str
    imbalance_factor: float
    rule: str
    seed: int
    class_counts: tuple[int, ...]
    indices: np.ndarray

    def write(self, path: Path) -> None:
        """Writes the split as JSON, one line a field, whole or not at all.

        A `UsageError` says that the file cannot be written.
        """
        record = {"format": _FORMAT, **dataclasses.asdict(self), "indices": self.indices.tolist()}
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        try:
            with tempfile.TemporaryDirectory(prefix=".split-", dir=path.parent) as scratch:
                draft = Path(scratch, path.name)
                draft.write_text(text)
                draft.replace(path)
        except OSError as error:
            raise UsageError(f"split file {path} must be writable: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path, source: Source) -> Split:
        """Reads a split and checks that it belongs to the source.

        Args:
            path: file that `write` made.
            source: the data to train on, from any directory.

        Raises:
            UsageError: the file is missing or garbled, was made from other data, or its indices
                do not fit the data.
        """
        try:
            record = msgspec.convert(parse_json(read_utf8(path)), _SplitFile)
        except OSError as error:
            raise UsageError(f"split file {path} must be readable: {error.strerror}") from error
        except (ValueError, msgspec.ValidationError) as error:
            raise UsageError(
                f"split file {path} must be JSON of the format {_FORMAT!r}: {error}"
            ) from error
        values = msgspec.structs.asdict(record)
        del values["format"]
        split = cls(**{**values, "indices": np.array(record.indices, np.int64)})
        split._check(path, source)
        return split

    def _check(self, path: Path, source: Source) -> None:
        labels, num_classes = source.train.labels, source.num_classes
        made_from = (self.num_images, len(self.class_counts), self.labels_sha256)
        if made_from != (len(labels), num_classes, labels_digest(labels)):
            raise UsageError(
                f"split file {path} must be made from {source.name} ({len(labels)} images of "
                f"{num_classes} classes) or a copy with the same labels, got one made from "
                f"{self.source} ({self.num_images} images of {len(self.class_counts)} classes)"
            )
        need = None
        if self.indices.size == 0 or self.indices.min() < 0 or self.indices.max() >= len(labels):
            need = f"indices in 0..{len(labels) - 1}, got others or none"
        elif len(np.unique(self.indices)) < len(self.indices):
            need = "each index once, got one twice"
        else:
            counts = np.bincount(labels[self.indices], minlength=num_classes)
            if tuple(counts.tolist()) != self.class_counts:
                need = "the class counts that its indices give, got others"
        if need is not None:
            raise UsageError(f"split file {path} must have {need}")


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


def long_tailed_split(
    source: Source,
    *,
    profile: Profile = "exponential",
    imbalance_factor: float = 100.0,
    max_per_class: int | None = None,
    class_order: Sequence[int] | None = None,
    rule: SelectionRule = "shuffled",
    seed: int = 0,
) -> Split:
    """Makes a long-tailed split of a source.

    Args:
        source: the data.
        profile: see `profile_counts`. "native" takes all images, for a source that was published
            as a long-tailed one; the options that follow have no meaning then.
        imbalance_factor: see `profile_counts`.
        max_per_class: see `long_tailed_counts`; None for "native".
        class_order: see `long_tailed_counts`.
        rule: see `select_images`.
        seed: see `select_images`.

    Raises:
        UsageError: an argument is out of range or does not fit the data.
    """
    labels = source.train.labels
    if profile == "native":
        if max_per_class is not None:
            raise UsageError(f"max_per_class must be None with profile native, got {max_per_class}")
        available = np.bincount(labels, minlength=source.num_classes)
        refuse_empty_class(available)
        counts, indices = tuple(available.tolist()), np.arange(len(labels))
        imbalance_factor, rule, seed = float(available.max() / available.min()), "first", 0
    else:
        counts = long_tailed_counts(
            labels,
            source.num_classes,
            profile=profile,
            imbalance_factor=imbalance_factor,
            max_per_class=max_per_class,
            class_order=class_order,
        )
        indices = select_images(labels, counts, rule=rule, seed=seed)
    return Split(
        source=source.name,
        num_images=len(labels),
        labels_sha256=labels_digest(labels),
        profile=profile,
        imbalance_factor=imbalance_factor,
        rule=rule,
        seed=seed,
        class_counts=counts,
        indices=indices,
    )


def labels_digest(labels: np.ndarray) -> str:
    """Returns the SHA-256 of the labels as little-endian 32-bit integers, in hexadecimal."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()
