"""The IDX format of MNIST and of the sets that follow it (Fashion-MNIST, KMNIST, EMNIST)."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.errors import UsageError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 8
_CHUNK = 1 << 20
# Deflate's largest ratio of sizes.
_MOST_UNPACKED = 1032
# Six times EMNIST's images: a small file of zeros may be a large array.
_LARGEST = 1 << 32


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzip-compressed or not.

    Memory grows with the bytes that are there, never with what the header claims, and no array has
    more than 4 GiB. The format is described in LeCun, Cortes and Burges, "The MNIST database".

    Args:
        path: the file.
        ndim: number of dimensions it must have: 3 for images, 1 for labels.

    Raises:
        UsageError: the file is missing, damaged, no such IDX file, holds nothing, or its header
            and its size disagree.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            most = raw.seek(0, os.SEEK_END) * (_MOST_UNPACKED if is_gzip else 1)
            raw.seek(0)
            return _parse(gzip.GzipFile(fileobj=raw) if is_gzip else raw, path, ndim, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"IDX file {path} must be whole gzip data: {error}") from error
    except OSError as error:
        raise UsageError(f"IDX file {path} must be readable: {error.strerror}") from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path, ndim: int, most: int) -> np.ndarray:
    magic = bytes((0, 0, _UNSIGNED_BYTE, ndim))
    header = stream.read(4 + 4 * ndim)
    if header[:4] != magic or len(header) < 4 + 4 * ndim:
        raise UsageError(
            f"IDX file {path} must be of {ndim}-dimensional unsigned bytes and start with "
            f"{magic.hex()} and {ndim} sizes, got {header[:4].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    need = f"IDX file {path} must hold the {size} bytes that its header {shape} means"
    if size > min(most, _LARGEST):
        raise UsageError(f"{need}, got {min(most, _LARGEST)} at most")
    body = bytearray()
    while len(body) < size and (chunk := stream.read(min(_CHUNK, size - len(body)))):
        body += chunk
    if len(body) < size:
        raise UsageError(f"{need}, got only {len(body)}")
    if stream.read(1):
        raise UsageError(f"{need}, got more")
    if size == 0:
        raise UsageError(f"IDX file {path} must hold something, got shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def load_idx(directory: Path, image_size: int | None) -> LoadedImages:
    """Loads the four IDX files of one MNIST-like data set, images of one channel.

    The names must end as MNIST's do (`train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, with
    or without `.gz`). EMNIST's prefixes and its `test` for `t10k` are accepted. Labels that start
    at 1 (EMNIST letters) are shifted to start at 0 and name their classes.

    Args:
        directory: where the files lie, one data set alone.
        image_size: side to which the images are resized; None keeps their own.

    Raises:
        UsageError: a file is missing, ambiguous, damaged or does not fit the others.
    """
    train_images, train_labels = _read_part(directory, ("train",))
    test_images, test_labels = _read_part(directory, ("t10k", "test"))
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UsageError(
            f"IDX directory {directory} must have images of one size, got "
            f"{train_images.shape[1:]} for training and {test_images.shape[1:]} for tests"
        )
    first, last = int(train_labels.min()), int(train_labels.max())
    # EMNIST letters counts from 1. Any other gap stays visible as a class without an image.
    base = 1 if first == 1 and test_labels.min() >= 1 else 0
    train, test = (
        ArrayImages(images[..., np.newaxis], labels.astype(np.int32) - base, image_size)
        for images, labels in ((train_images, train_labels), (test_images, test_labels))
    )
    return LoadedImages(tuple(map(str, range(base, last + 1))), train, test)


def _read_part(directory: Path, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(directory, [f"{name}-images?idx3-ubyte" for name in names])
    labels_path = _find(directory, [f"{name}-labels?idx1-ubyte" for name in names])
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise UsageError(
            f"IDX directory {directory} must have as many labels as images, got {len(images)} "
            f"images in {images_path.name} and {len(labels)} labels in {labels_path.name}"
        )
    return images, labels


def _find(directory: Path, patterns: list[str]) -> Path:
    if not directory.is_dir():
        raise UsageError(f"IDX directory {directory} must be a directory, got none")
    # The plain file comes last and so wins over its own compressed copy.
    found = {
        path.name.removesuffix(".gz"): path
        for suffix in (".gz", "")
        for pattern in patterns
        for path in sorted(directory.glob(f"*{pattern}{suffix}"))
    }
    if len(found) != 1:
        raise UsageError(
            f"IDX directory {directory} must hold exactly one file *{patterns[0]}[.gz], "
            f"got {', '.join(sorted(found)) or 'none'}"
        )
    return next(iter(found.values()))
