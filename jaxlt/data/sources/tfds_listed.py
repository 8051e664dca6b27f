"""Long-tailed subsets, given by list files, of what tensorflow-datasets keeps."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.list_file import BadLine, ListFile, class_names, refuse
from jaxlt.data.sources.listed import read_lists
from jaxlt.data.sources.resampling import Resize
from jaxlt.data.sources.tfds import is_text, make_builder, preparation_errors, supervised_keys
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

# What imagenet2012, places365_small and i_naturalist2018 call the name of an image's file.
_NAME_FEATURES = ("file_name", "filename", "id")
_FORMAT = "array_record"
_LOGGED = 100_000

_logger = logging.getLogger(__name__)


class TfdsImages(EncodedImages):
    """Images of a list, read one by one from the records of tensorflow-datasets.

    Args:
        records: the splits, sequences of examples with encoded images.
        image_key: the feature that is the image.
        places: int64 array (N, 2), of each image its split and its position there.
        listed: the list, whose labels are taken.
        image_size: see `EncodedImages`.
        resize: see `EncodedImages`.
    """

    def __init__(
        self,
        records: Sequence[Any],
        image_key: str,
        places: np.ndarray,
        listed: ListFile,
        image_size: int,
        resize: Resize,
    ) -> None:
        super().__init__(listed.labels, image_size, resize)
        self._records = records
        self._image_key = image_key
        self._places = places
        self._listed = listed

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the encoded image of a number, scalar tensors both."""
        tf = import_tensorflow()
        contents = tf.numpy_function(self._encoded, (number,), tf.string)
        return tf.ensure_shape(contents, ())

    def name(self, number: int) -> str:
        """Returns the list file, the line in it and the path there."""
        listed = self._listed
        return f"{listed.path}:{listed.lines[number]} {listed.images[number]}"

    def _encoded(self, number: np.ndarray) -> bytes:
        split, position = self._places[number].tolist()
        return self._records[split][position][self._image_key]


def load_listed_tfds(place: str, image_size: int, resize: Resize) -> LoadedImages:
    """Loads the subset of a prepared set that the official list files of a long-tailed set name.

    A line's image is the example, of any split, whose feature `file_name`, `filename` or `id` is
    the path, its last part or that without its suffix. Labels are those of the lists. All records
    are read through once to find the examples; their names are then kept beside them.

    Args:
        place: NAME,TRAIN or NAME,TRAIN,TEST or NAME,TRAIN,VAL,TEST or NAME,TRAIN,VAL,TEST,OPEN:
            what `tfds.builder` takes and the list files, see `read_lists`. The set must be stored
            as array records, which can be read in any order. It is downloaded and so stored if it
            is not there.
        image_size: see `jaxlt.data.sources.listed.load_listed`.
        resize: see there.

    Raises:
        UsageError: `place` is of another form, a list cannot be read, lines are bad (two of one
            image, too), a class has no training image, there is no such set, it could not be
            prepared, is stored in another format or does not name its images.
    """
    name, lists, bad = read_lists("tfds:NAME", place)
    builder = make_builder(name)
    if not builder.is_prepared():
        refuse(bad)
        builder = make_builder(name, file_format=_FORMAT)
    image_key, _ = supervised_keys(builder, name)
    texts = [
        key
        for key in _NAME_FEATURES
        if key in builder.info.features and is_text(builder.info.features[key])
    ]
    if not texts:
        raise UsageError(
            f"dataset tfds:{name} must name its images by {' or '.join(_NAME_FEATURES)} for list "
            "files to select them, got none of these"
        )
    splits = _records(builder, name, image_key)
    found = _find(
        {image for listed in lists.values() for image in listed.images},
        (_names(builder, split, records, texts[0]) for split, records in splits.items()),
    )
    for listed in lists.values():
        bad += _unknown(listed, found, name)
    refuse(bad + _taken_twice(lists.values(), found))
    sets = {}
    for part, listed in lists.items():
        places = np.array([found[image] for image in listed.images], np.int64)
        records = list(splits.values())
        sets[part] = TfdsImages(records, image_key, places, listed, image_size, resize)
    return LoadedImages(class_names(lists["train"]), **sets)


def _records(builder: Any, name: str, image_key: str) -> dict[str, Any]:
    """Returns the splits, training images first, as random-access sequences of examples."""
    import tensorflow_datasets as tfds

    with preparation_errors(name):
        builder.download_and_prepare()
    undecoded = {image_key: tfds.decode.SkipDecoding()}
    splits = sorted(builder.info.splits, key=lambda split: (split != "train", split))
    try:
        return {split: builder.as_data_source(split, decoders=undecoded) for split in splits}
    except NotImplementedError as error:
        raise UsageError(
            f"format of dataset tfds:{name} must be {_FORMAT} for list files to select images, got "
            f"{builder.info.file_format.value} in {builder.data_dir}: prepare it in another "
            "TFDS_DATA_DIR"
        ) from error


def _names(builder: Any, split: str, records: Any, name_key: str) -> list[str]:
    """Returns the name of each example of a split, from the file that keeps them if it exists."""
    kept = Path(builder.data_dir) / f"jaxlt_names_{split}.txt"
    try:
        names = kept.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        names = []
    if len(names) == len(records):
        return names
    names = []
    for number in range(len(records)):
        if number % _LOGGED == 0:
            _logger.info("%s: names of %d of %d images read", split, number, len(records))
        names.append(records[number][name_key].decode())
    try:
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text("".join(f"{name}\n" for name in names), "utf-8")
        partial.replace(kept)
    except OSError as error:
        _logger.warning("names of the images cannot be kept in %s: %s", kept, error.strerror)
    return names


def _find(images: set[str], splits: Any) -> dict[str, tuple[int, int]]:
    """Returns split and position of each image, looking into no more splits than it takes."""
    found: dict[str, tuple[int, int]] = {}
    for number, names in enumerate(splits):
        positions = {name: position for position, name in enumerate(names)}
        # A name of several images is no name of one.
        for name, count in Counter(names).items() if len(positions) < len(names) else ():
            if count > 1:
                del positions[name]
        for image in images - found.keys():
            path = PurePosixPath(image)
            for name in (image, path.name, path.stem):
                if name in positions:
                    found[image] = number, positions[name]
                    break
        if len(found) == len(images):
            break
    return found


def _unknown(listed: ListFile, found: dict[str, tuple[int, int]], name: str) -> list[BadLine]:
    return [
        listed.bad_line(number, f"image must be one of tfds:{name}, got {image}")
        for number, image in enumerate(listed.images)
        if image not in found
    ]


def _taken_twice(lists: Iterable[ListFile], found: dict[str, tuple[int, int]]) -> list[BadLine]:
    """Returns the lines whose image an earlier line has under another path."""
    owners: dict[tuple[int, int], str] = {}
    bad = []
    for listed in lists:
        for number, image in enumerate(listed.images):
            # Validation and test list may name the same image, by the same path.
            if image in found and owners.setdefault(found[image], image) != image:
                reason = f"image must be new, got {image}, which is that of {owners[found[image]]}"
                bad.append(listed.bad_line(number, reason))
    return bad
