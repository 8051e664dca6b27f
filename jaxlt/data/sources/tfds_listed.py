"""Long-tailed subsets, given by list files, of what tensorflow-datasets keeps."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.list_lines import BadLine, ListFile, class_names, refuse
from jaxlt.data.sources.listed import read_lists
from jaxlt.data.sources.resampling import Resize
from jaxlt.data.sources.tfds import has_text, make_builder, preparation_errors, supervised_keys
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

# What imagenet2012, places365_small and i_naturalist2018 call the name of an image's file.
_NAME_FEATURES = ("file_name", "filename", "id")
_FORMAT = "array_record"
_LOGGED = 100_000

_logger = logging.getLogger(__name__)


class TfdsImages(EncodedImages):
    """Images of a list, read one by one by `encoded`, which takes the path in the list."""

    def __init__(
        self, encoded: Callable[[str], bytes], listed: ListFile, image_size: int, resize: Resize
    ) -> None:
        super().__init__(listed.labels, image_size, resize)
        self._encoded = encoded
        self._listed = listed
        self.names = listed.images

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the encoded image of a number, scalar tensors both."""
        tf = import_tensorflow()
        images = self._listed.images
        contents = tf.numpy_function(lambda x: self._encoded(images[x]), (number,), tf.string)
        return tf.ensure_shape(contents, ())

    def name(self, number: int) -> str:
        """Returns the list file, the line in it and the path there."""
        listed = self._listed
        return f"{listed.path}:{listed.lines[number]} {listed.images[number]}"


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
    name_key = next((key for key in _NAME_FEATURES if has_text(builder, key)), None)
    if name_key is None:
        raise UsageError(
            f"dataset tfds:{name} must name its images by {' or '.join(_NAME_FEATURES)} for list "
            "files to select them, got none of these"
        )
    splits = _records(builder, name, image_key)
    found = _find(
        {image for listed in lists.values() for image in listed.images},
        ((split, _names(builder, split, splits[split], name_key)) for split in splits),
    )
    refuse(bad + _bad_images(name, lists.values(), found))

    def encoded(image: str) -> bytes:
        split, position = found[image]
        return splits[split][position][image_key]

    sets = {part: TfdsImages(encoded, listed, image_size, resize) for part, listed in lists.items()}
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
    with contextlib.suppress(OSError, UnicodeDecodeError):
        names = kept.read_text("utf-8").removesuffix("\n").split("\n")
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


def _find(images: set[str], splits: Any) -> dict[str, tuple[str, int]]:
    """Returns split and position of each image, looking into no more splits than it takes."""
    found: dict[str, tuple[str, int]] = {}
    for split, names in splits:
        # A name of several images is no name of one.
        times = Counter(names)
        positions = {name: place for place, name in enumerate(names) if times[name] == 1}
        for image in images - found.keys():
            path = PurePosixPath(image)
            known = [x for x in (image, path.name, path.stem) if x in positions]
            if known:
                found[image] = split, positions[known[0]]
        if len(found) == len(images):
            break
    return found


def _bad_images(
    name: str, lists: Iterable[ListFile], found: dict[str, tuple[str, int]]
) -> list[BadLine]:
    """Returns the lines whose image was not found, or an earlier line has under another path."""
    owners: dict[tuple[str, int], str] = {}
    bad = []
    for listed in lists:
        for number, image in enumerate(listed.images):
            if image not in found:
                reason = f"image must be one of tfds:{name}, got {image}"
                bad.append(listed.bad_line(number, reason))
            # Validation and test list may name the same image, by the same path.
            elif owners.setdefault(found[image], image) != image:
                reason = f"image must be new, got {image}, which is that of {owners[found[image]]}"
                bad.append(listed.bad_line(number, reason))
    return bad
