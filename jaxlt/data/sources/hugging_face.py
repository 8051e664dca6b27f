"""Image classification sets of Hugging Face: on its hub, in a directory, or saved to disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

import numpy as np

from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.folder import PARTS
from jaxlt.data.sources.foreign_clutter import files_without_clutter, say_left_out
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError, first_line
from jaxlt.files.directory import expanded
from jaxlt.files.foreign_files import read_content
from jaxlt.files.hub_answer import hub_answer

if TYPE_CHECKING:
    import tensorflow as tf

_logger = logging.getLogger(__name__)

# What sets call their columns, the usual name first.
_IMAGES = ("image", "img", "images", "picture")
_LABELS = ("label", "labels", "fine_label", "class", "target", "category")
_NO_LABEL = -1


class TableImages(EncodedImages):
    """Images of a column of a table; see `EncodedImages` for the other arguments.

    Args:
        rows: what has in row i the bytes of image i, or a dict of these or of a file's path.
        labels: integer array (N,), the class of each image.
        what: name of the table.
        image_size: see `EncodedImages`.
        resize: see there.
    """

    def __init__(
        self, rows: Any, labels: np.ndarray, what: str, image_size: int, resize: Resize
    ) -> None:
        super().__init__(labels, image_size, resize)
        self._rows, self._what = rows, what

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the encoded image of a number, scalar tensors both."""
        tf = import_tensorflow()
        found = tf.numpy_function(lambda row: self._bytes(int(row)), (number,), tf.string)
        return tf.ensure_shape(found, ())

    def _bytes(self, row: int) -> bytes:
        value = self._rows[row]
        if isinstance(value, Mapping):
            path, value = value.get("path"), value.get("bytes")
            if value is None and path is not None:
                value = read_content(path)
        return b"" if value is None else value

    def name(self, number: int) -> str:
        """Returns the table and the row, counted from 0."""
        return f"{self._what} row {number}"


class _Columns(NamedTuple):
    """The columns of images and labels, and the names of the classes where the table has them."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def load_hugging_face(place: str, image_size: int, resize: Resize) -> LoadedImages:
    """Loads a data set by Hugging Face's library `datasets`; its images stay encoded.

    The parts are `train`, `validation` and `test`, the last two where they are. The log says which
    columns are the images and the labels, and which parts are passed over. Labels are class labels,
    integers or texts; those of the latter two are numbered in their order.

    Args:
        place: NAME or NAME,CONFIG of a set on the hub, which is downloaded into that library's
            cache, or a directory: of images, of tables (Parquet and others), or what
            `save_to_disk` wrote.
        image_size: side of the square to which every image is resized.
        resize: how, see `jaxlt.data.sources.resampling`.

    Raises:
        UsageError: the library is not installed, the hub does not answer and the set is in no
            cache, or the set has no part to train on, no column of images or none of labels.
    """
    parts = _parts_of(_loaded(place), place)
    columns = _columns_of(parts["train"], place)
    _logger.info("hf:%s: images are column %s, labels %s", place, columns.image, columns.label)
    labels = {part: _labels_of(table, columns, place) for part, table in parts.items()}
    names, numbered = _numbered(labels, columns, place)
    sets: dict[str, TableImages] = {}
    for part, table in parts.items():
        rows = _encoded(table, columns.image)
        sets[part] = TableImages(rows, numbered[part], f"hf:{place} {part}", image_size, resize)
    if "test" not in sets:
        sets["test"] = TableImages([], np.zeros(0, np.int32), f"hf:{place}", image_size, resize)
    return LoadedImages(names, sets["train"], sets["test"], sets.get("val"))


def _loaded(place: str) -> Any:
    """Returns the data set, a dict of tables by part or one table."""
    # It logs which other libraries it found, and the hub's each of its attempts.
    for library, level in (("datasets", logging.WARNING), ("huggingface_hub", logging.ERROR)):
        logging.getLogger(library).setLevel(level)
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"datasets must be installed to read hf:{place}, got none: "
            "python3 -m pip install 'jaxlt[hf]'"
        ) from error
    datasets.disable_progress_bars()
    name, _, config = place.rpartition(",")
    if not name or expanded(place).is_dir():
        name, config = place, ""
    directory = expanded(name)
    need = f"source hf:{place} must be a data set that the library datasets reads"
    if directory.is_dir():
        saved = ("dataset_dict.json", "state.json")
        try:
            if any((directory / file).is_file() for file in saved):
                return datasets.load_from_disk(str(directory))
            # That library would make classes of clutter.
            files = files_without_clutter(directory)
            found = datasets.load_dataset(str(directory), config or None, data_files=files)
            say_left_out(directory, sum(map(len, found.values())))
            return found
        # The library raises errors of its own, of Arrow's and of Python's.
        except Exception as error:
            raise UsageError(f"{need}: {first_line(error)}") from error
    silence = _ask_hub(name)
    from datasets import config as settings

    before = settings.HF_HUB_OFFLINE
    # What was downloaded before needs no answer.
    settings.HF_HUB_OFFLINE = before or silence is not None
    try:
        return datasets.load_dataset(name, config or None)
    except Exception as error:
        if silence is None:
            raise UsageError(f"{need}: {first_line(error)}") from error
        raise UsageError(
            f"source hf:{place} must be a directory, or a name that the Hugging Face hub or its "
            f"cache has: {silence}; where no hub answers, put the set's files in a directory and "
            "give its path"
        ) from error
    finally:
        settings.HF_HUB_OFFLINE = before


def _ask_hub(name: str) -> str | None:
    """Returns why the hub does not say in time that it has a set, None if it does."""
    import huggingface_hub

    try:
        hub_answer(lambda seconds: huggingface_hub.HfApi().dataset_info(name, timeout=seconds))
    except Exception as error:
        return first_line(error)
    return None


def _parts_of(loaded: Any, place: str) -> dict[str, Any]:
    tables = loaded if isinstance(loaded, dict) else {"train": loaded}
    parts: dict[str, Any] = {}
    for part, known in PARTS.items():
        if found := next((name for name in known if name in tables), None):
            parts[part] = tables[found]
    if len(tables) == 1:
        ((name, table),) = tables.items()
        parts = {"train": table}
        if name not in PARTS["train"]:
            _logger.warning("hf:%s: %s, its only part, is taken for training", place, name)
    if "train" not in parts:
        raise UsageError(
            f"data set hf:{place} must have a part train, got {', '.join(map(str, tables))}"
        )
    taken = list(map(id, parts.values()))
    if over := [str(name) for name, table in tables.items() if id(table) not in taken]:
        _logger.warning("hf:%s: passed over %s", place, ", ".join(over))
    return {part: table for part, table in parts.items() if part == "train" or len(table)}


def _columns_of(table: Any, place: str) -> _Columns:
    import datasets

    features = table.features
    classes = [name for name, one in features.items() if isinstance(one, datasets.ClassLabel)]
    images = [name for name, one in features.items() if isinstance(one, datasets.Image)]
    images = images or [name for name, one in features.items() if _holds_bytes(one)]
    need = f"data set hf:{place} must have one column of images"
    image = _chosen(images, _IMAGES, need, features)
    plain = [name for name, one in features.items() if _is_plain(one) and name != image]
    need = f"data set hf:{place} must have one column of class labels"
    label = _chosen(classes or plain, _LABELS, need, features)
    return _Columns(image, label, tuple(features[label].names) if label in classes else None)


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return "bytes" in feature and _holds_bytes(feature["bytes"])
    return getattr(feature, "dtype", "") in ("binary", "large_binary")


def _is_plain(feature: Any) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    return kind.startswith(("int", "uint")) or kind in ("string", "large_string")


def _chosen(
    candidates: Sequence[str], usual: Sequence[str], need: str, features: Mapping[str, Any]
) -> str:
    """Returns the only candidate, or the one of the most usual name."""
    found = next((name for name in usual if name in candidates), None)
    if found is None and len(candidates) == 1:
        found = candidates[0]
    if found is None:
        raise UsageError(f"{need}, or one that is called {usual[0]}, got {', '.join(features)}")
    return found


def _labels_of(table: Any, columns: _Columns, place: str) -> list[Any]:
    if not {columns.image, columns.label} <= table.features.keys():
        raise UsageError(
            f"each part of hf:{place} must have the columns {columns.image} and {columns.label}, "
            f"got {', '.join(table.features)}"
        )
    names = getattr(table.features[columns.label], "names", None)
    if (None if names is None else tuple(names)) != columns.class_names:
        raise UsageError(f"each part of hf:{place} must have the same class names, got others")
    labels = list(table[columns.label])
    return [normalize("NFC", one) if isinstance(one, str) else one for one in labels]


def _numbered(
    labels: dict[str, list[Any]], columns: _Columns, place: str
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Returns the names of the classes, and the labels of each part as numbers."""
    for part, values in labels.items():
        if None in values:
            raise UsageError(
                f"{part} images of hf:{place} must have a label each, got none in row "
                f"{values.index(None)}"
            )
    # As sets on the hub have it whose test labels are secret.
    for part in [part for part, values in labels.items() if set(values) == {_NO_LABEL}]:
        if part != "train":
            _logger.warning("hf:%s: %s images have no labels and are passed over", place, part)
            labels[part] = []
    if columns.class_names is not None:
        classes, names = range(len(columns.class_names)), columns.class_names
    else:
        classes = sorted(set(labels["train"]))
        names = tuple(map(str, classes))
    numbers = {value: number for number, value in enumerate(classes)}
    for part, values in labels.items():
        if odd := [value for value in values if value not in numbers]:
            raise UsageError(
                f"{part} labels of hf:{place} must be among the {len(numbers)} classes of its "
                f"training images, got {odd[0]!r:.80}"
            )
    return names, {
        part: np.array([numbers[value] for value in values], np.int32)
        for part, values in labels.items()
    }


def _encoded(table: Any, column: str) -> Any:
    import datasets

    rows = table.select_columns([column]).with_format(None)
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return _Rows(rows, column)


class _Rows:
    def __init__(self, table: Any, column: str):
        self._table, self._column = table, column

    def __getitem__(self, row: int) -> Any:
        return self._table[row][self._column]
