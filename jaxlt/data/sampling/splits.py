"""Long-tailed splits, and the file by which a colleague trains on the same images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlt.data.sampling.long_tail import Profile, SelectionRule, long_tailed_counts, select_images
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json, read_utf8

_FORMAT = "jaxlt split 1"
_LARGEST = 2**63
_SCALAR_TYPES = {
    "source": str,
    "num_images": int,
    "labels_sha256": str,
    "profile": str,
    "imbalance_factor": (int, float),
    "rule": str,
    "seed": int,
}


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
        """Writes the split as JSON, one line a field; the file appears whole or not at all.

        Raises:
            UsageError: the file cannot be written.
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
            raise UsageError(f"split file {path} cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path, source: Source) -> Split:
        """Reads a split and checks that it belongs to the source.

        Args:
            path: file that `write` made.
            source: the data to train on, from any directory.

        Returns:
            The split.

        Raises:
            UsageError: the file is missing or garbled, was made from other data, or its indices
                do not fit the data.
        """
        split = cls(**_read_fields(path))
        split._check(path, source)
        return split

    def _check(self, path: Path, source: Source) -> None:
        labels, num_classes = source.train.labels, source.num_classes
        made_from = (self.num_images, len(self.class_counts), self.labels_sha256)
        if made_from != (len(labels), num_classes, labels_digest(labels)):
            raise UsageError(
                f"split file {path} was made from {self.source} ({self.num_images} images of "
                f"{len(self.class_counts)} classes), it must be made from {source.name} "
                f"({len(labels)} images of {num_classes} classes) or a copy with the same labels"
            )
        indices = self.indices
        if indices.size == 0 or indices.min() < 0 or indices.max() >= len(labels):
            raise UsageError(
                f"split file {path} has indices out of range or none at all, "
                f"they must lie in 0..{len(labels) - 1}"
            )
        if len(np.unique(indices)) < len(indices):
            raise UsageError(f"split file {path} has an index twice, each must be there once")
        counts = tuple(np.bincount(labels[indices], minlength=num_classes).tolist())
        if counts != self.class_counts:
            raise UsageError(f"split file {path} has class counts that its indices do not give")


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
        profile: see `profile_counts`; "native" takes all images, for a source that is
            long-tailed as it was published. The options that follow have no meaning then.
        imbalance_factor: see `profile_counts`.
        max_per_class: see `long_tailed_counts`; none for "native".
        class_order: see `long_tailed_counts`.
        rule: see `select_images`.
        seed: see `select_images`.

    Returns:
        The split.

    Raises:
        UsageError: an argument is out of range or does not fit the data.
    """
    if profile == "native":
        return _native_split(source, max_per_class)
    labels = source.train.labels
    counts = long_tailed_counts(
        labels,
        source.num_classes,
        profile=profile,
        imbalance_factor=imbalance_factor,
        max_per_class=max_per_class,
        class_order=class_order,
    )
    return Split(
        source=source.name,
        num_images=len(labels),
        labels_sha256=labels_digest(labels),
        class_counts=counts,
        indices=select_images(labels, counts, rule=rule, seed=seed),
        profile=profile,
        imbalance_factor=imbalance_factor,
        rule=rule,
        seed=seed,
    )


def _native_split(source: Source, max_per_class: int | None) -> Split:
    labels = source.train.labels
    counts = np.bincount(labels, minlength=source.num_classes)
    if max_per_class is not None:
        raise UsageError(f"max per class is {max_per_class}, it must be none with profile native")
    if not counts.all():
        empty = int(np.flatnonzero(counts == 0)[0])
        raise UsageError(f"class {empty} has no training image, every class must have one")
    return Split(
        source=source.name,
        num_images=len(labels),
        labels_sha256=labels_digest(labels),
        class_counts=tuple(counts.tolist()),
        indices=np.arange(len(labels)),
        profile="native",
        imbalance_factor=float(counts.max() / counts.min()),
        rule="first",
        seed=0,
    )


def labels_digest(labels: np.ndarray) -> str:
    """Returns the SHA-256 of the labels as little-endian 32-bit integers, in hexadecimal."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(read_utf8(path))
    except OSError as error:
        raise UsageError(f"split file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"split file {path} is garbled, it must be JSON: {error}") from error
    if not isinstance(record, dict) or record.pop("format", None) != _FORMAT:
        raise UsageError(f"split file {path} is of no known format, it must say {_FORMAT!r}")
    names = {field.name for field in dataclasses.fields(Split)}
    if wrong := sorted(names ^ set(record)):
        raise UsageError(f"split file {path} lacks the field {wrong[0]!r} or must not have it")
    for name, kind in _SCALAR_TYPES.items():
        if not isinstance(record[name], kind):
            raise UsageError(f"split file {path} has {name} {record[name]!r} of the wrong type")
    record["class_counts"] = tuple(_integers(record["class_counts"], path).tolist())
    record["indices"] = _integers(record["indices"], path)
    return record


def _integers(values: Any, path: Path) -> np.ndarray:
    # NumPy would make texts of one length and nested lists of one shape before it says what it saw.
    whole = isinstance(values, list) and all(
        type(value) is int and abs(value) < _LARGEST for value in values
    )
    if not whole:
        raise UsageError(f"split file {path} has indices or class counts that are no integer list")
    return np.array(values, np.int64)
