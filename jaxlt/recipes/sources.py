"""The sources of images of a recipe."""

from typing import TYPE_CHECKING, TypeAlias

from jaxlt.recipes.part import Choice


class NamedSource(Choice, frozen=True):
    """Where labeled images come from: NAME, or NAME:FIELD, as `jaxlt.data.load_source` takes it."""


class Digits(NamedSource, frozen=True, tag="digits"):
    """scikit-learn's 8x8 digits, offline."""


class IDX(NamedSource, frozen=True, tag="idx"):
    """MNIST's file format, gzip or not."""

    directory: str
    """Directory of the four files."""


class CIFAR(NamedSource, frozen=True, tag="cifar"):
    """CIFAR-10 or CIFAR-100 as published, for Python or in binary."""

    path: str
    """Archive, or directory of its files."""


class TFDS(NamedSource, frozen=True, tag="tfds"):
    """tensorflow-datasets, or list files over what it keeps."""

    dataset: str
    """NAME, or NAME,TRAIN[,VAL][,TEST][,OPEN] with list files."""


class Folder(NamedSource, frozen=True, tag="folder"):
    """Image files in DIRECTORY/train/CLASS, and val and test likewise, or DIRECTORY/CLASS."""

    directory: str
    """Directory of train, val and test, or of the classes."""


class HuggingFace(NamedSource, frozen=True, tag="hf"):
    """Images that Hugging Face's library `datasets` reads."""

    dataset: str
    """NAME or NAME,CONFIG on the hub, or a directory."""


class Lists(NamedSource, frozen=True, tag="list"):
    """Image files named by list files."""

    lists: str
    """ROOT,TRAIN or ROOT,TRAIN,TEST or ROOT,TRAIN,VAL,TEST or ROOT,TRAIN,VAL,TEST,OPEN."""


if TYPE_CHECKING:
    AnySource: TypeAlias = NamedSource
else:
    AnySource = Digits | IDX | CIFAR | TFDS | Folder | HuggingFace | Lists
