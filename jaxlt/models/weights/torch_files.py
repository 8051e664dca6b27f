"""Tensors of PyTorch's files, read without PyTorch and without running what a file says.

A `.pth` file of torch >= 1.6 is a zip: `data.pkl` is a pickle of the state dict, in which each
tensor's numbers are a reference to an entry `data/N`. A pickle can name any function of Python and
have it called. Here it gets inert stand-ins for those that a state dict is made of.
"""

import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize

from jaxlt.errors import UsageError, first_line
from jaxlt.files.foreign_files import parse_json, read_content, read_utf8
from jaxlt.files.pickles import Function, StateDict, interpret

_ZIP_MAGIC = b"PK\x03\x04"
# How torch.save began before version 1.6: protocol 2 and a magic number.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_SAFETENSORS_DTYPES = {
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (8, 4, 2)},
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.bool_,
}


def files_of_weights(path: Path) -> list[Path]:
    """Returns the files of a state dict: the one itself, or Hugging Face's index and its parts.

    UsageError says that the index is damaged, or names files of other directories.
    """
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        values = parse_json(read_utf8(path))
        parts = sorted(set(values["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} must be an index of weights, with a weight_map: {first_line(error)}"
        ) from error
    for part in parts:
        if not isinstance(part, str) or Path(part).name != part or part.endswith(".json"):
            raise UsageError(f"{path} must name files beside it, got {part!r:.80}")
    return [path, *(path.with_name(part) for part in parts)]


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict: a safetensors file, or what `torch.save` of torch >= 1.6 wrote.

    Of an index, such as model.safetensors.index.json, all parts are read.

    The state dict may lie in a dict under "state_dict" or "model", beside numbers, texts and other
    dicts. The prefix "module." that all names have after training with several devices is dropped.
    Arrays are read-only. A `UsageError` says that the file cannot be read, is damaged, or holds
    other things than a state dict.
    """
    _, *parts = files_of_weights(Path(path))
    if parts:
        whole: dict[str, np.ndarray] = {}
        for part in parts:
            found = read_tensors(part)
            if twice := whole.keys() & found.keys():
                raise UsageError(f"{path} must name each tensor once, got {min(twice)} twice")
            whole |= found
        return whole
    try:
        content = read_content(path)
        if content.startswith(_LFS_POINTER):
            raise UsageError(
                f"{path} must hold weights, but is a Git LFS pointer, not weights; run git lfs pull"
            )
        if content.startswith(_LEGACY_MAGIC):
            raise UsageError(
                f"{path} must be a zip, as torch.save writes since torch 1.6, got the older "
                "format: load it with PyTorch and save it again"
            )
        if content.startswith(_ZIP_MAGIC):
            tensors = _of_state_dict(path, _unpickle(path, content))
        else:
            tensors = _of_safetensors(path, content)
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{path} must be a readable safetensors file or state dict of PyTorch: {reason}"
        ) from error
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _of_safetensors(path: str | Path, content: bytes) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in deserialize(content):
        kind, shape = tensor["dtype"], tensor["shape"]
        if kind not in _SAFETENSORS_DTYPES:
            known = ", ".join(_SAFETENSORS_DTYPES)
            raise UsageError(f"tensor {name} in {path} must be of {known}, got {kind}")
        flat = np.frombuffer(bytes(tensor["data"]), np.dtype(_SAFETENSORS_DTYPES[kind]))
        try:
            tensors[name] = flat.reshape(shape)
        # Without numbers, any sizes pass for those of the file, and NumPy has a largest of each.
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"tensor {name} in {path} must have a shape that arrays have, got {shape!r:.80}"
            ) from error
    return tensors


def _of_state_dict(path: str | Path, value: Any) -> dict[str, np.ndarray]:
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold a state dict, got a {type(value).__name__}")
    found = (value[key] for key in ("state_dict", "model") if isinstance(value.get(key), dict))
    state_dict = next(found, value)
    for name, tensor in state_dict.items():
        if not (isinstance(name, str) and isinstance(tensor, np.ndarray)):
            what = "tensors" if isinstance(tensor, np.ndarray) else f"a {type(tensor).__name__}"
            raise UsageError(
                f"{path} must hold a state dict, a tensor for each name, got {what} under "
                f"{name!r:.80}"
            )
    return dict(state_dict)


def _unpickle(path: str | Path, content: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _StateDictReader(path, archive, len(content)).read()
    except UsageError:
        raise
    # A damaged zip can make the library raise anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} must be a whole file of torch.save: {reason:.200}") from error


class _Storage(NamedTuple):
    """A flat array that tensors are views of."""

    dtype: np.dtype
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content) // self.dtype.itemsize


class _StateDictReader:
    """Reads the state dict of a zip that `torch.save` wrote, whose entries lie in one folder."""

    def __init__(self, path: str | Path, archive: zipfile.ZipFile, size: int):
        self._path, self._archive, self._left = path, archive, size
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UsageError(
                f"{path} must hold one entry data.pkl, as files of torch.save do, got "
                f"{len(pickles)}"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in archive.namelist():
            order = self._content("byteorder")
            if order not in (b"", b"little"):
                raise UsageError(f"{path} must be little-endian, got the byte order {order!r:.20}")
        self._storages: dict[str, _Storage] = {}
        self._globals = {
            ("collections", "OrderedDict"): Function("OrderedDict", lambda: StateDict()),
            ("torch._utils", "_rebuild_tensor_v2"): Function("_rebuild_tensor_v2", self._tensor),
            # That of an `nn.Parameter`, whose first argument is the tensor.
            ("torch._utils", "_rebuild_parameter"): Function(
                "_rebuild_parameter", lambda tensor, *unused: tensor
            ),
            **{("torch", name): Function(name) for name in _DTYPES},
        }

    def read(self) -> Any:
        return interpret(self._content("data.pkl"), self._named, self._storage)

    def _content(self, name: str) -> bytes:
        entry = self._archive.getinfo(self._folder + name)
        # PyTorch never compresses; a compressed entry could be far larger than the file.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UsageError(f"entries of {self._path} must not be compressed, got {name}")
        # Entries of a zip may lie about their size and share their bytes.
        self._left -= entry.file_size
        if self._left < 0:
            raise UsageError(f"entries of {self._path} must fit in the file, got ones that overlap")
        return self._archive.read(entry)

    def _named(self, module: str, name: str) -> Function:
        if (module, name) not in self._globals:
            asked = f"{module}.{name}"
            raise UsageError(
                f"{self._path} must hold a state dict alone, got the global {asked!r:.120}"
            )
        return self._globals[module, name]

    def _storage(self, reference: Any) -> _Storage:
        kind, storage_type, key, _, count = reference
        if kind != "storage" or not (isinstance(key, str) and isinstance(count, int)):
            raise ValueError("a reference is to no storage")
        dtype = np.dtype(_DTYPES[storage_type.name])
        size = self._archive.getinfo(f"{self._folder}data/{key}").file_size
        if size != count * dtype.itemsize:
            raise UsageError(
                f"storage {key} in {self._path} must be {count} numbers of {dtype}, got "
                f"{size} bytes"
            )
        if key not in self._storages:
            self._storages[key] = _Storage(dtype, self._content(f"data/{key}"))
        return self._storages[key]._replace(dtype=dtype)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        """Returns a view of a storage; offset and strides are in numbers, not bytes."""
        # What is shown must be checked before: a tuple of tuples may be far longer than the file.
        if not (isinstance(storage, _Storage) and all(map(_is_flat, (offset, shape, strides)))):
            raise TypeError("a tensor is made of other things than a storage and numbers")
        numbers = (offset, *shape, *strides)
        whole = all(type(number) is int and number >= 0 for number in numbers)
        if not (whole and len(shape) == len(strides) and _fits(storage, offset, shape, strides)):
            raise UsageError(
                f"tensors in {self._path} must lie within their storage of {storage.size} numbers, "
                f"got offset {offset!r:.40}, shape {shape!r:.80} and strides {strides!r:.80}"
            )
        size = storage.dtype.itemsize
        steps = [size * stride for stride in strides]
        return np.ndarray(shape, storage.dtype, storage.content, offset * size, steps)


def _is_flat(value: object) -> bool:
    numbers = value if type(value) is tuple else (value,)
    return all(isinstance(number, (int, float)) for number in numbers)


def _fits(storage: _Storage, offset: int, shape: Iterable[int], strides: Iterable[int]) -> bool:
    count = math.prod(shape)
    if count == 0:
        return offset <= storage.size
    # A stride of 0 repeats a number without end.
    if count > storage.size:
        return False
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return offset + last < storage.size
