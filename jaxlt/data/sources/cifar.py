"""CIFAR-10 and CIFAR-100 as their authors publish them: archives or directories."""

import gzip
import io
import logging
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.cifar_pickles import read_pickle
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_content

_logger = logging.getLogger(__name__)

PUBLISHED = {"training": 50_000, "test": 10_000}
"""How many images each form has."""
_PIXELS = 3 * 32 * 32
_GZIP_MAGIC = b"\x1f\x8b"
_ARCHIVES = ("cifar-10*.tar*", "cifar-100*.tar*")
# The largest published file has 186 MB, a whole archive that is unpacked 186 MB too.
_LARGEST_FILE = 1 << 28
_LARGEST_ARCHIVE = 1 << 30
_CHUNK = 1 << 20
_SHOWN = 120
_ANEW = "; get it anew, as its authors publish it"
_Part = tuple[np.ndarray, np.ndarray]


class _Form(NamedTuple):
    """One of the four published forms.

    Attributes:
        name: as messages have it.
        train, test: its files.
        names: the file of class names, which may be missing.
        read: turns a file's bytes into pixels (N, 3072) and labels (N,), given its name.
        list_names: the class names that the file of names has.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    read: Callable[[bytes, str], _Part]
    list_names: Callable[[bytes, str], list[str]]

    @property
    def files(self) -> tuple[str, ...]:
        """The files of images."""
        return self.train + self.test


def _binary(num_labels: int) -> Callable[[bytes, str], _Part]:
    record = num_labels + _PIXELS

    def read(content: bytes, where: str) -> _Part:
        if len(content) % record or not content:
            raise UsageError(
                f"{where} must hold images of {record} bytes each with the label, got "
                f"{len(content)} bytes{_ANEW}"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        # Of CIFAR-100's two labels the second is of the fine classes.
        return records[:, num_labels:], records[:, num_labels - 1].astype(np.int32)

    return read


def _pickled(key: str) -> Callable[[bytes, str], _Part]:
    def read(content: bytes, where: str) -> _Part:
        values = read_pickle(content, where)
        pixels, labels = values.get("data"), values.get(key)
        if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and isinstance(labels, list)):
            raise UsageError(
                f"{where} must hold an array under data and a list under {key}, got "
                f"{', '.join(map(str, values)) or 'nothing':.{_SHOWN}}{_ANEW}"
            )
        if not all(type(label) is int and 0 <= label < 256 for label in labels):
            wrong = next(one for one in labels if type(one) is not int or not 0 <= one < 256)
            raise UsageError(f"{where} must have labels of 0 to 255, got {wrong!r:.20}{_ANEW}")
        if pixels.shape != (len(labels), _PIXELS) or not labels:
            raise UsageError(
                f"{where} must have {_PIXELS} bytes and a label for each image, got an array of "
                f"{pixels.shape} and {len(labels)} labels{_ANEW}"
            )
        return pixels, np.array(labels, np.int32)

    return read


def _lines(content: bytes, where: str) -> list[str]:
    try:
        return [line.strip() for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} must be UTF-8 text, got {error.reason}{_ANEW}") from error


def _names_under(key: str) -> Callable[[bytes, str], list[str]]:
    def read(content: bytes, where: str) -> list[str]:
        names = read_pickle(content, where).get(key)
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UsageError(f"{where} must have a list of names under {key}, got none{_ANEW}")
        return names

    return read


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_FORMS = (
    _Form(
        *("CIFAR-10 for Python", _BATCHES, ("test_batch",), "batches.meta", _pickled("labels")),
        _names_under("label_names"),
    ),
    _Form(
        *("CIFAR-10 in binary", tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",)),
        *("batches.meta.txt", _binary(1), _lines),
    ),
    _Form(
        *("CIFAR-100 for Python", ("train",), ("test",), "meta", _pickled("fine_labels")),
        _names_under("fine_label_names"),
    ),
    _Form(
        *("CIFAR-100 in binary", ("train.bin",), ("test.bin",), "fine_label_names.txt"),
        *(_binary(2), _lines),
    ),
)
_KNOWN = {name for form in _FORMS for name in (*form.files, form.names)}


def load_cifar(path: Path, image_size: int | None) -> LoadedImages:
    """Loads CIFAR-10 or CIFAR-100 as published, for Python or in binary, into memory.

    Which of them it is its files tell. The images have the order of the files, which is that of
    `tfds:cifar10` and `tfds:cifar100` and defines the published long-tailed subsets. Nothing is
    unpickled, and nothing of an archive is written to disk. CIFAR-100 has its 100 fine classes.

    Args:
        path: an archive, such as cifar-10-python.tar.gz; the directory in it; or a directory
            that holds one of these.
        image_size: side to which the images are resized; None keeps 32.

    Raises:
        UsageError: there is no such data, it is damaged or not whole, or there are several.
    """
    form, files, where = _found(path)
    parts = []
    for (part, number), names in zip(PUBLISHED.items(), (form.train, form.test), strict=True):
        read = [form.read(files[name], f"{name} of {where}") for name in names]
        pixels = np.concatenate([one for one, _ in read]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([one for _, one in read])
        if len(labels) != number:
            # From others the published subsets cannot be drawn.
            raise UsageError(
                f"{where} must hold the {number} {part} images of {form.name}, got "
                f"{len(labels)}{_ANEW}"
            )
        parts.append((np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels))
    class_names = _class_names(form, files, where, max(labels.max() for _, labels in parts) + 1)
    train, test = (ArrayImages(pixels, labels, image_size) for pixels, labels in parts)
    return LoadedImages(class_names, train, test)


def _class_names(
    form: _Form, files: Mapping[str, bytes], where: str, num_labels: int
) -> tuple[str, ...]:
    if form.names not in files:
        _logger.warning("%s has no %s: classes are called by their numbers", where, form.names)
        return tuple(map(str, range(num_labels)))
    names = form.list_names(files[form.names], f"{form.names} of {where}")
    if len(set(names)) < len(names) or len(names) < num_labels:
        raise UsageError(
            f"{form.names} of {where} must name each of {num_labels} classes once, got "
            f"{len(names)} names, {len(set(names))} of them different{_ANEW}"
        )
    return tuple(names)


def _found(path: Path) -> tuple[_Form, dict[str, bytes], str]:
    """Returns the form of what lies at a path, its files, and what a message calls it."""
    if not path.is_dir():
        return _chosen(_of_archive(path), str(path))
    try:
        inner = sorted(one for one in path.iterdir() if one.is_dir())
        archives = sorted({one for pattern in _ARCHIVES for one in path.glob(pattern)})
        places = {
            str(place): {name: place / name for name in _KNOWN if (place / name).is_file()}
            for place in (path, *inner)
        }
    except OSError as error:
        raise UsageError(f"CIFAR {path} must be readable: {error.strerror}") from error
    if any(_forms_of(names) for names in places.values()) or not archives:
        form, chosen, where = _chosen(places, str(path))
        return form, {name: _content(file) for name, file in chosen.items()}, where
    if len(archives) > 1:
        shown = ", ".join(one.name for one in archives)
        raise UsageError(f"CIFAR {path} must hold one archive, got {shown}; name one of them")
    return _chosen(_of_archive(archives[0]), str(archives[0]))


def _forms_of(names: Mapping[str, Any]) -> list[_Form]:
    return [form for form in _FORMS if set(form.files) <= names.keys()]


def _chosen(places: Mapping[str, dict[str, Any]], where: str) -> tuple[_Form, dict[str, Any], str]:
    """Returns the one directory with all files of a form; UsageError says what is missing."""
    whole = [(place, form) for place, names in places.items() for form in _forms_of(names)]
    if len(whole) > 1:
        shown = ", ".join(f"{form.name} in {place}" for place, form in whole)
        raise UsageError(f"CIFAR {where} must hold one data set, got {shown}; name one of them")
    for place, form in whole:
        return form, places[place], place if place.startswith(where) else where
    missing: Sequence[str] = _FORMS[0].files
    nearest = _FORMS[0]
    for form in _FORMS:
        for names in places.values():
            absent = [name for name in form.files if name not in names]
            if len(absent) < len(form.files) and len(absent) < len(missing):
                missing, nearest = absent, form
    if len(missing) < len(nearest.files):
        raise UsageError(
            f"CIFAR {where} must hold all files of {nearest.name}, got no "
            f"{', '.join(missing)}{_ANEW}"
        )
    raise UsageError(
        f"CIFAR {where} must be an archive or directory of CIFAR-10 or CIFAR-100 as published, "
        "such as cifar-10-python.tar.gz or cifar-100-binary, got none of their files"
    )


def _content(path: Path) -> bytes:
    try:
        return read_content(path, _LARGEST_FILE)
    except OSError as error:
        raise UsageError(f"CIFAR file {path} must be readable: {error.strerror}") from error


def _kind(content: bytes) -> str:
    """Returns what a file is by its first bytes, where it is no archive."""
    if content.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM")):
        return "an image"
    return f"{len(content)} bytes that are none"


def _of_archive(path: Path) -> dict[str, dict[str, bytes]]:
    """Returns the files of CIFAR's names in an archive, by their directory in it."""
    content = _content(path)
    is_gzip = content.startswith(_GZIP_MAGIC)
    stream: Any = io.BytesIO(content)
    found: dict[str, dict[str, bytes]] = {}
    left = _LARGEST_ARCHIVE
    try:
        # A stream is read once, from the beginning, and nothing of it is unpacked to disk.
        unpacked = gzip.GzipFile(fileobj=stream) if is_gzip else stream
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                left -= member.size
                if not 0 <= member.size <= min(left, _LARGEST_FILE):
                    raise UsageError(
                        f"CIFAR archive {path} must hold at most {_LARGEST_ARCHIVE} bytes, "
                        f"{_LARGEST_FILE} in a file, got more"
                    )
                if not member.isfile() or member.issparse() or name.name not in _KNOWN:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                inside = file.read()
                if len(inside) < member.size:
                    raise EOFError(f"{name.name} ends early")
                found.setdefault(str(name.parent), {})[name.name] = inside
        # Only at its end gzip tells whether its contents are what was packed.
        while left > 0 and (rest := len(unpacked.read(_CHUNK))):
            left -= rest
    except UsageError:
        raise
    # A damaged archive can make the library raise any of these.
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
        raise UsageError(
            f"CIFAR archive {path} must be a whole tar archive, such as cifar-10-python.tar.gz, "
            f"got {_kind(content)}: {reason}{_ANEW}"
        ) from error
    return found
