"""Tensors of PyTorch's files, read without PyTorch and without running what a file says.

A `.pth` file of torch >= 1.6 is a zip: `data.pkl` is a pickle of the state dict, in which each
tensor's numbers are a reference to an entry `data/N`. A pickle can name any function of Python and
have it called. Here it can name those that a state dict is made of, and gets inert stand-ins.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize

from jaxlt.errors import UsageError

_ZIP_MAGIC = b"PK\x03\x04"
# How torch.save began before version 1.6: protocol 2 and a magic number.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
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
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.bool_,
}
# What checkpoints keep a state dict under.
_STATE_DICT_KEYS = ("state_dict", "model")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict: a safetensors file, or what `torch.save` of torch >= 1.6 wrote.

    Nothing that the file names is imported or called. A state dict may lie in a dict under
    "state_dict" or "model", beside numbers, texts and other dicts, and the prefix "module." that
    all names have after training with several devices is dropped.

    Returns:
        Read-only arrays by name.

    Raises:
        UsageError: the file cannot be read, is damaged, or holds other things than a state dict.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(_LEGACY_MAGIC):
            raise UsageError(
                f"{path}: must be a zip, as torch.save writes since torch 1.6, it is of the older "
                "format; load it with PyTorch and save it again"
            )
        tensors = (
            _of_state_dict(path, _unpickle(path, content))
            if content.startswith(_ZIP_MAGIC)
            else _of_safetensors(path, content)
        )
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{path}: must be a readable safetensors file or state dict of PyTorch: {reason}"
        ) from error
    return _without_prefix(tensors)


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not all(name.startswith("module.") for name in tensors):
        return tensors
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _of_safetensors(path: str | Path, content: bytes) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in deserialize(content):
        kind, shape = tensor["dtype"], tensor["shape"]
        if kind not in _SAFETENSORS_DTYPES:
            known = ", ".join(_SAFETENSORS_DTYPES)
            raise UsageError(f"{path}: tensor {name} must be of {known}, it is of {kind}")
        flat = np.frombuffer(bytes(tensor["data"]), np.dtype(_SAFETENSORS_DTYPES[kind]))
        tensors[name] = flat.reshape(shape)
    return tensors


def _of_state_dict(path: str | Path, value: Any) -> dict[str, np.ndarray]:
    for key in _STATE_DICT_KEYS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a state dict, it holds a {type(value).__name__}")
    for name, tensor in value.items():
        if not (isinstance(name, str) and isinstance(tensor, np.ndarray)):
            raise UsageError(
                f"{path}: must hold a state dict, a tensor for each name, it has "
                f"{_kind(tensor)} under {name!r:.80}"
            )
    return dict(value)


def _kind(value: object) -> str:
    return "tensors" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _unpickle(path: str | Path, content: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = _Entries(path, archive)
            return _StateDictUnpickler(path, entries).load()
    except UsageError:
        raise
    # A damaged pickle can make the unpickler raise anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: must be a whole file of torch.save: {reason:.200}") from error


class _Entries:
    """The entries of a zip that `torch.save` wrote, by their names below its one folder."""

    def __init__(self, path: str | Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UsageError(
                f"{path}: must hold one entry data.pkl, as files of torch.save do, it has "
                f"{len(pickles)}"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        order = self.read("byteorder") if self._folder + "byteorder" in archive.namelist() else b""
        if order not in (b"", b"little"):
            raise UsageError(f"{path}: must be little-endian, its byte order is {order!r:.20}")

    def size(self, name: str) -> int:
        return self._archive.getinfo(self._folder + name).file_size

    def read(self, name: str) -> bytes:
        entry = self._archive.getinfo(self._folder + name)
        # PyTorch never compresses; a compressed entry could be far larger than the file.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UsageError(f"{self._path}: entries must not be compressed, {name} is")
        return self._archive.read(entry)


class _Storage(NamedTuple):
    """A flat array that tensors are views of."""

    dtype: np.dtype
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content) // self.dtype.itemsize


class _StateDict(dict):
    """What the pickle fills in place of an OrderedDict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignores attributes: those of a state dict are versions of modules."""


class _Standin:
    """What the pickle gets in place of something that it names: no attribute can be set on it."""

    __slots__ = ("_function", "name")

    def __init__(self, name: str, function: Any = None):
        self.name, self._function = name, function

    def __call__(self, *args: Any) -> Any:
        if self._function is None:
            raise pickle.UnpicklingError(f"{self.name} was called")
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"attributes of {self.name} were set")


class _StateDictUnpickler(pickle.Unpickler):
    def __init__(self, path: str | Path, entries: _Entries):
        super().__init__(io.BytesIO(entries.read("data.pkl")))
        self._path, self._entries = path, entries
        self._storages: dict[tuple[str, str, int], _Storage] = {}
        self._globals = {
            ("collections", "OrderedDict"): _Standin("OrderedDict", lambda: _StateDict()),
            ("torch._utils", "_rebuild_tensor_v2"): _Standin("_rebuild_tensor_v2", self._tensor),
            ("torch._utils", "_rebuild_parameter"): _Standin("_rebuild_parameter", _of_parameter),
            **{("torch", name): _Standin(name) for name in _DTYPES},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._globals:
            asked = f"{module_name}.{global_name}"
            raise UsageError(
                f"{self._path}: must hold a state dict alone, it asks for the global {asked!r:.120}"
            )
        return self._globals[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not (isinstance(key, str) and isinstance(count, int)):
            raise pickle.UnpicklingError(f"{pid!r:.80} is no storage")
        described = key, storage_type.name, count
        if described not in self._storages:
            dtype = np.dtype(_DTYPES[storage_type.name])
            size = self._entries.size(f"data/{key}")
            if size != count * dtype.itemsize:
                raise UsageError(
                    f"{self._path}: storage {key} must be {count} numbers of {dtype}, "
                    f"its entry has {size} bytes"
                )
            self._storages[described] = _Storage(dtype, self._entries.read(f"data/{key}"))
        return self._storages[described]

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *unused: object,
    ) -> np.ndarray:
        """Returns a view of a storage; offset and strides are in numbers, not bytes."""
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError(f"a tensor's storage is a {type(storage).__name__}")
        numbers = (offset, *shape, *strides)
        whole = all(type(number) is int and number >= 0 for number in numbers)
        if not (whole and len(shape) == len(strides) and _fits(storage, offset, shape, strides)):
            raise UsageError(
                f"{self._path}: a tensor must lie within its storage of {storage.size} numbers, it "
                f"has offset {offset!r:.40}, shape {shape!r:.80} and strides {strides!r:.80}"
            )
        size = storage.dtype.itemsize
        return np.ndarray(
            shape,
            storage.dtype,
            buffer=storage.content,
            offset=offset * size,
            strides=[size * stride for stride in strides],
        )


def _of_parameter(tensor: object, *unused: object) -> object:
    """Returns the tensor of an `nn.Parameter`."""
    return tensor


def _fits(storage: _Storage, offset: int, shape: Iterable[int], strides: Iterable[int]) -> bool:
    if math.prod(shape) == 0:
        return offset <= storage.size
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return offset + last < storage.size
