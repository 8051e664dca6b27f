"""Long-tailed splits: profiles, the selection of images, and the file that keeps it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError

Profile = Literal["exponential", "step", "balanced", "native"]
SelectionRule = Literal["shuffled", "first"]
SPLIT_FORMAT = "jaxlt split 1"


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The training images that a long-tailed experiment uses.

    Attributes:
        source: name of the source it was made from; a copy of the same data serves as well.
        num_images: training images of the whole source.
        labels_sha256: digest of their labels, see `labels_digest`.
        profile, imbalance_factor, rule, seed: what it was made by, see `long_tailed_split`.
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
        """Writes JSON, one line a field, whole or not at all; a `UsageError` says it cannot be."""
        record = {"format": SPLIT_FORMAT, **dataclasses.asdict(self)}
        record["indices"] = self.indices.tolist()
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
        try:
            with tempfile.TemporaryDirectory(prefix=".split-", dir=path.parent) as scratch:
                draft = Path(scratch, path.name)
                draft.write_text("{\n" + ",\n".join(lines) + "\n}\n")
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
        from jaxlt.data.sampling.split_file import read_split

        return read_split(path, source)


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
    """Makes a long-tailed split of a source; a `UsageError` names an argument that does not fit it.

    Args:
        source: the data.
        profile: see `profile_counts`. "native" takes all images, for a source that was published
            as a long-tailed one; the options that follow have no meaning then.
        imbalance_factor: see `profile_counts`.
        max_per_class: see `long_tailed_counts`; None for "native".
        class_order: see there.
        rule: see `select_images`.
        seed: see there.

    Example:
        >>> from jaxlt.data import load_source, long_tailed_split
        >>> long_tailed_split(load_source("digits"), imbalance_factor=20.0).class_counts
        (116, 83, 59, 42, 30, 21, 15, 11, 8, 5)
    """
    labels, num_classes = source.train.labels, source.num_classes
    if profile == "native":
        if max_per_class is not None:
            raise UsageError(f"max_per_class must be None with profile native, got {max_per_class}")
        available = _images_of_classes(labels, num_classes)
        counts, indices = tuple(available.tolist()), np.arange(len(labels))
        imbalance_factor, rule, seed = float(available.max() / available.min()), "first", 0
    else:
        counts = long_tailed_counts(
            labels,
            num_classes,
            profile=profile,
            imbalance_factor=imbalance_factor,
            max_per_class=max_per_class,
            class_order=class_order,
        )
        indices = select_images(labels, counts, rule=rule, seed=seed)
    made_of = (source.name, len(labels), labels_digest(labels))
    return Split(*made_of, profile, imbalance_factor, rule, seed, counts, indices)


def labels_digest(labels: np.ndarray) -> str:
    """Returns the SHA-256 of the labels as little-endian 32-bit integers, in hexadecimal."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def long_tailed_counts(
    labels: np.ndarray,
    num_classes: int,
    *,
    profile: Profile,
    imbalance_factor: float,
    max_per_class: int | None = None,
    class_order: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Returns how many images each class keeps, by label.

    The head class keeps `max_per_class` images or as many as the smallest class has, whichever
    is less. So no class is too small for its rank, and the profile is exact. A `UsageError` says
    what it says in `profile_counts`, that a class has no image, or `class_order` is no permutation.

    Args:
        labels: integer array (N,), the class of each image, in [0, num_classes).
        num_classes: number of classes.
        profile: see `profile_counts`.
        imbalance_factor: see `profile_counts`.
        max_per_class: upper bound on the images of the head class; None sets none.
        class_order: labels from head to tail; None is ascending order.

    Example:
        >>> import numpy as np, jaxlt.data as data
        >>> labels = np.repeat([0, 1, 2], 50)
        >>> data.long_tailed_counts(labels, 3, profile="step", imbalance_factor=5.0)
        (50, 50, 10)
    """
    available = _images_of_classes(labels, num_classes)
    smallest = int(available.min())
    order = list(range(num_classes)) if class_order is None else list(class_order)
    if sorted(order) != list(range(num_classes)):
        raise UsageError(
            f"class_order must be a permutation of 0..{num_classes - 1}, got {len(order)} entries, "
            f"{len(set(order))} of them different"
        )
    head = smallest if max_per_class is None else min(max_per_class, smallest)
    try:
        by_rank = profile_counts(profile, imbalance_factor, num_classes, head)
    except UsageError as error:
        from jaxlt.data.sampling.natural_counts import with_remedy

        raise with_remedy(error, profile, available, head) from None
    return tuple(by_rank[rank] for rank in np.argsort(order))


def _images_of_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise UsageError(
            f"classes must have a training image each, got none of class {counts.argmin()}"
        )
    return counts


def profile_counts(
    profile: Profile, imbalance_factor: float, num_classes: int, max_per_class: int
) -> tuple[int, ...]:
    """Returns how many images each class keeps, by rank: rank 0 is the head.

    "exponential" keeps `n_max * imbalance_factor ** (-rank / (num_classes - 1))` images. "step"
    keeps `n_max` in the first half of the ranks, the larger one if they differ, and
    `n_max / imbalance_factor` in the second. Both round down, as in CIFAR-10-LT and CIFAR-100-LT
    (Cao et al., LDAM, NeurIPS 2019). "balanced" keeps `n_max` everywhere. A `UsageError` says that
    an argument is out of range, or that a class would be left with no image.

    Args:
        profile: shape of the tail.
        imbalance_factor: images of the largest class over those of the smallest, at least 1.
        num_classes: number of classes.
        max_per_class: `n_max`, images of the head class.

    Example:
        >>> from jaxlt.data import profile_counts
        >>> profile_counts("exponential", 100.0, num_classes=3, max_per_class=500)
        (500, 50, 5)
    """
    if not 1 <= imbalance_factor < float("inf"):
        raise UsageError(f"imbalance_factor must be finite and at least 1, got {imbalance_factor}")
    if max_per_class < 1:
        raise UsageError(f"max_per_class must be at least 1, got {max_per_class}")
    ranks = range(num_classes)
    if profile == "exponential":
        last = max(num_classes - 1, 1)
        counts = tuple(int(max_per_class / imbalance_factor ** (rank / last)) for rank in ranks)
    elif profile == "step":
        num_head = num_classes - num_classes // 2
        tail_count = int(max_per_class / imbalance_factor)
        counts = tuple(max_per_class if rank < num_head else tail_count for rank in ranks)
    elif profile == "balanced":
        counts = (max_per_class,) * num_classes
    else:
        raise UsageError(f"profile must be exponential, step or balanced, got {profile!r}")
    if counts[-1] < 1:
        raise UsageError(
            f"imbalance_factor must be at most {max_per_class}, the images of the head class, for "
            f"the tail class to have an image, got {imbalance_factor}"
        )
    return counts


def select_images(
    labels: np.ndarray, counts: Sequence[int], *, rule: SelectionRule, seed: int = 0
) -> np.ndarray:
    """Selects `counts[c]` images of each class c, classes in ascending order.

    "shuffled" with seed 0 takes the images that the code of LDAM-DRW, MiSLAS, GCL, LIFT, Focal-SAM
    and others takes: one NumPy Mersenne twister shuffles the images of each class, and the first
    ones are kept. "first" takes the first of each class, as the code of ImbSAM and SSE-SAM does. A
    `UsageError` says that an argument is out of range or a class has too few images.

    Args:
        labels: integer array (N,), the class of each image.
        counts: number of images to keep of each class, by label.
        rule: which images.
        seed: of the "shuffled" rule, in [0, 2**32).

    Example:
        >>> import numpy as np, jaxlt.data as data
        >>> print(data.select_images(np.array([0, 1, 0, 1, 0]), (2, 1), rule="first"))
        [0 2 1]
    """
    if rule not in ("shuffled", "first"):
        raise UsageError(f"rule must be shuffled or first, got {rule!r}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed of the selection must lie in 0..{2**32 - 1}, got {seed}")
    # NumPy promises that this legacy generator's stream never changes: it is the published one.
    random = np.random.RandomState(seed)
    selected = []
    for label, count in enumerate(counts):
        candidates = np.flatnonzero(labels == label)
        if count > len(candidates):
            raise UsageError(
                f"count of class {label} must be at most {len(candidates)}, its images, got {count}"
            )
        if rule == "shuffled":
            random.shuffle(candidates)
        selected.append(candidates[:count])
    return np.concatenate(selected)
