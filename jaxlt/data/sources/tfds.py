"""Image classification sets of tensorflow-datasets, with its own download and cache."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import is_enlarged, resize
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

_READ_BATCH = 256
_SHOWN = 400  # characters of a message
# What precedes a colon is a namespace unless a version follows.
_OWN = re.compile(r"[^:]*(:[0-9.*]+)?")


def load_tfds(name: str, image_size: int | None, default_size: int) -> LoadedImages:
    """Loads the training and test images of a set of tensorflow-datasets into memory.

    The first use downloads them. tensorflow-datasets stores images shuffled. Where the set keeps
    their original numbers in a text feature `id` (CIFAR-10 and CIFAR-100 do), they are put back
    into that order, which defines the published long-tailed subsets.

    Args:
        name: what `tfds.builder` takes, such as "cifar100" or "svhn_cropped:3.1.0". A set without
            the split "test" gives its "validation" instead.
        image_size: side to which the images are resized, when they are read if all are of one
            size and it is smaller; None keeps their own.
        default_size: the side where `image_size` is None and the set has images of many sizes.

    Raises:
        UsageError: no such set, it could not be prepared (no network, say), or it does not
            hold images with one label each.
    """
    builder = make_builder(name)
    image_key, label_key = supervised_keys(builder, name)
    with preparation_errors(name):
        builder.download_and_prepare()
    if image_size is None and None in builder.info.features[image_key].shape:
        image_size = default_size
    splits = builder.info.splits
    test_split = "test" if "test" in splits else "validation"
    if not {"train", test_split} <= set(splits):
        raise UsageError(
            f"dataset tfds:{name} must have splits train and test (or validation), "
            f"got {', '.join(splits) or 'none'}"
        )
    train, test = (
        _read_split(builder, split, image_key, label_key, image_size)
        for split in ("train", test_split)
    )
    return LoadedImages(tuple(builder.info.features[label_key].names), train, test)


def make_builder(name: str, **options: Any) -> Any:
    """Returns what `tfds.builder` does, without a download; a `UsageError` says there is no set."""
    if not _OWN.fullmatch(name):
        raise UsageError(
            "source must be one of tensorflow-datasets itself, as those of a namespace download "
            f"code and run it, got tfds:{name}"
        )
    import_tensorflow()
    import tensorflow_datasets as tfds

    with preparation_errors(name):
        # Given here because tensorflow-datasets reads the variable only once, when imported.
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), **options)


@contextlib.contextmanager
def preparation_errors(name: str) -> Iterator[None]:
    """Turns what tensorflow-datasets raises into a `UsageError` of one line."""
    try:
        yield
    # A failed look-up, download or extraction has no exception type in common: requests, urllib3,
    # TensorFlow, OSError, AssertionError and others come through.
    except Exception as error:
        reason = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
        raise UsageError(f"dataset tfds:{name} must be available: {reason}") from error


def supervised_keys(builder: Any, name: str) -> tuple[str, str]:
    """Returns the features that are a set's 8-bit images and labels, or raises a `UsageError`."""
    import tensorflow_datasets as tfds

    keys, features = builder.info.supervised_keys, builder.info.features
    if (
        keys is None
        or len(keys) < 2
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or features[keys[0]].np_dtype != np.uint8
    ):
        raise UsageError(
            f"dataset tfds:{name} must hold 8-bit images with one class label each, "
            f"got the supervised keys {keys}"
        )
    # places365_small has the file's name as a third.
    return keys[0], keys[1]


def has_text(builder: Any, key: str) -> bool:
    """Whether a set has a feature of this name that is text."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    return key in features and isinstance(features[key], tfds.features.Text)


def _read_split(
    builder: Any, split: str, image_key: str, label_key: str, image_size: int | None
) -> ArrayImages:
    tf = import_tensorflow()
    has_id = has_text(builder, "id")
    shape = builder.info.features[image_key].shape

    def select(example: dict[str, Any]) -> tuple[Any, Any, Any]:
        image = example[image_key]
        if image_size is not None and not is_enlarged(shape, image_size):
            image = resize(image, image_size)
        return image, example[label_key], example["id"] if has_id else ""

    dataset = builder.as_dataset(split=split, shuffle_files=False)
    batches = dataset.map(select, num_parallel_calls=tf.data.AUTOTUNE).batch(_READ_BATCH)
    columns = zip(*batches.as_numpy_iterator(), strict=True)
    images, labels, ids = (np.concatenate(column) for column in columns)
    if has_id:
        order = np.argsort(ids.astype(bytes), kind="stable")
        images, labels = images[order], labels[order]
    return ArrayImages(images, labels, image_size)
