"""Data sources: where labeled images come from, and how their pixels are normalized."""

import dataclasses
from collections.abc import Sequence
from typing import Literal
from unicodedata import normalize

import numpy as np

from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.folder import load_folder
from jaxlt.data.sources.idx import load_idx
from jaxlt.data.sources.image_set import ImageSet, LoadedImages
from jaxlt.data.sources.listed import load_listed
from jaxlt.data.sources.published_statistics import published_statistics
from jaxlt.data.sources.resampling import Resize
from jaxlt.data.sources.tfds import load_tfds
from jaxlt.data.sources.tfds_listed import load_listed_tfds
from jaxlt.data.sources.unreadable import Unreadable
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded

_DEFAULT_SIZE = 32
_STATISTICS_SAMPLE = 1024
_MAX_DIGIT_INTENSITY = 16
_CIFAR = ("cifar10", "cifar100")
Normalization = Literal["dataset", "imagenet", "inaturalist2018", "clip", "half"]
Relabel = Literal["none", "by_size"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A classification data set, before any long-tailed selection.

    Attributes:
        name: the specification it was loaded by, such as "tfds:cifar100".
        class_names: one name a class, by label, in Unicode's composed form.
        train: training images.
        test: test images, never thinned out; none where a source of files has no such part.
        val: validation images, of the same classes, where the source has a set of them.
        open: images of no class, all with label -1, where the source has a set of them.
        mean, std: of the training pixels, per channel, in units where white is 1.
        class_numbers: by label, what the class was numbered before `relabel`.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: ImageSet | None = None
    open: ImageSet | None = None
    class_numbers: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.train.image_shape


def load_source(
    spec: str,
    *,
    image_size: int | None = None,
    resize: Resize = "stretch",
    normalization: Normalization = "dataset",
    unreadable: Unreadable = "error",
    relabel: Relabel = "none",
) -> Source:
    """Loads a data set by its specification.

    A `UsageError` says that the specification is none of those below, the data are missing or
    damaged, or `resize` asks for what can be done to image files alone.

    Args:
        spec: "digits" (scikit-learn), "idx:DIR" (MNIST's file format), "cifar:PATH" (see
            `load_cifar`), "tfds:NAME" (tensorflow-datasets, loaded into memory), "folder:DIR" (see
            `load_folder`), "hf:NAME_OR_DIR" (see `load_hugging_face`), "list:ROOT,LISTS" (see
            `load_listed`) or "tfds:NAME,LISTS" (see `load_listed_tfds`).
        image_size: side to which images are resized. None keeps the images' own size, or takes
            32 where they may differ in size (`folder:`, list files, some of `tfds:`).
        resize: how images of files are brought to that size where they are not cropped at
            random: "stretch" or "center_crop", see `jaxlt.data.sources.resampling`.
        normalization: "imagenet", "inaturalist2018" and "clip" are published means and deviations,
            "half" is 0.5. "dataset" takes those that the literature uses for CIFAR-10 and
            CIFAR-100, and for any other set those of up to 1024 training images, evenly spaced.
        unreadable: whether images among those that cannot be decoded are left out ("skip").
        relabel: "by_size", as MiSLAS and Saddle-LongTail have it, see `LoadedImages`.

    Example:
        >>> from jaxlt.data import load_source
        >>> digits = load_source("digits")
        >>> digits.image_shape, digits.num_classes, len(digits.train.labels)
        ((8, 8, 1), 10, 1201)
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size must be at least 1, got {image_size}")
    loaded = _load_images(spec, image_size, resize)
    loaded = loaded._replace(class_names=tuple(normalize("NFC", x) for x in loaded.class_names))
    for part, images in (("training", loaded.train), ("test", loaded.test)):
        _check_labels(spec, part, images.labels, len(loaded.class_names))
    class_numbers = tuple(range(len(loaded.class_names)))
    if relabel == "by_size":
        loaded, class_numbers = loaded.relabeled_by_size()
    mean, std = _statistics(spec, loaded.train, normalization, unreadable)
    return Source(spec, **loaded._asdict(), mean=mean, std=std, class_numbers=class_numbers)


def is_of_files(spec: str) -> bool:
    """Whether a specification is of image files, each of a size of its own."""
    of_lists = spec.startswith("tfds:") and "," in spec
    return of_lists or spec.startswith(("folder:", "list:", "hf:"))


def _load_images(spec: str, image_size: int | None, resize: Resize) -> LoadedImages:
    kind, _, place = spec.partition(":")
    if is_of_files(spec) and place:
        size = image_size or _DEFAULT_SIZE
        if kind == "folder":
            return load_folder(expanded(place), size, resize)
        if kind == "hf":
            from jaxlt.data.sources.hugging_face import load_hugging_face

            return load_hugging_face(place, size, resize)
        load = load_listed if kind == "list" else load_listed_tfds
        return load(place, size, resize)
    if resize != "stretch":
        raise UsageError(
            "resize must be stretch but for image files (folder:, hf: or list files), got "
            f"{resize} for {spec}"
        )
    if spec == "digits":
        return _load_digits(image_size)
    if kind == "idx" and place:
        return load_idx(expanded(place), image_size)
    if kind == "cifar" and place:
        from jaxlt.data.sources.cifar import load_cifar

        return load_cifar(expanded(place), image_size)
    if kind == "tfds" and place:
        return load_tfds(place, image_size, _DEFAULT_SIZE)
    raise UsageError(
        "source must be digits, idx:DIR, cifar:PATH, tfds:NAME, folder:DIR, hf:NAME_OR_DIR, "
        f"list:ROOT,TRAIN,TEST or tfds:NAME,TRAIN,TEST, got {spec!r}"
    )


def _check_labels(spec: str, part: str, labels: np.ndarray, num_classes: int) -> None:
    if len(labels) == 0:
        if part == "test":
            return  # Validation images may be evaluated in their place.
        raise UsageError(f"dataset {spec} must have a {part} image, got none")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(
            f"{part} labels of dataset {spec} must lie in 0..{num_classes - 1}, got "
            f"{labels.min()} to {labels.max()}"
        )


def _statistics(
    spec: str, images: ImageSet, normalization: Normalization, unreadable: Unreadable
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kind, _, place = spec.partition(":")
    is_cifar = kind == "cifar" or (kind == "tfds" and place.split(":")[0] in _CIFAR)
    if is_cifar or normalization != "dataset":
        name = "cifar" if normalization == "dataset" else normalization
        return published_statistics(name, images.image_shape[2], spec)
    count = min(len(images.labels), _STATISTICS_SAMPLE)
    numbers = np.linspace(0, len(images.labels) - 1, count, dtype=np.int64)
    if unreadable == "skip":
        numbers = images.readable(numbers)
    pixels = images.load(numbers).reshape(-1, images.image_shape[2]) / 255
    # A channel that never varies must be centered, not divided by zero.
    std = np.maximum(pixels.std(axis=0), 1 / 255)
    return tuple(pixels.mean(axis=0).tolist()), tuple(std.tolist())


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, b), float32 (C,): a * pixel + b is (pixel / 255 - mean) / std."""
    scale = 1 / (255 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)


def _load_digits(image_size: int | None) -> LoadedImages:
    """Loads the 1797 digits of scikit-learn, 8 by 8 pixels of 17 gray levels stretched to 0..255.

    Every third image of a class is a test image: 1201 are for training and 596 for tests. (Alpaydin
    and Kaynak, "Optical recognition of handwritten digits", UCI, 1998, its test part.)
    """
    from sklearn import datasets

    raw, labels = map(np.asarray, datasets.load_digits(return_X_y=True))
    pixels = np.rint(raw.reshape(-1, 8, 8, 1) * (255 / _MAX_DIGIT_INTENSITY)).astype(np.uint8)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[2::3]] = True
    return LoadedImages(
        class_names=tuple("0123456789"),
        train=ArrayImages(pixels[~is_test], labels[~is_test], image_size),
        test=ArrayImages(pixels[is_test], labels[is_test], image_size),
    )
