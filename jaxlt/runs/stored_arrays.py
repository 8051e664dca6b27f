"""Checkpoints as others may have left them: what their files say, the newest that is whole."""

import contextlib
import gc
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.traverse_util import flatten_dict

from jaxlt.errors import UsageError, first_line
from jaxlt.files.foreign_files import parse_json, read_utf8

_Read = TypeVar("_Read")

_logger = logging.getLogger(__name__)

# Of numbers; records and texts, which may be of any size, have capital letters or are lists.
_NUMBER = re.compile(r"[<>|]?[a-z][a-z0-9_]{0,19}")


def stored_arrays(path: Path) -> Any:
    """Returns the tree of a checkpoint's arrays, each with its `shape`, without reading them.

    Args:
        path: of a state that Orbax saved, absolute.

    Raises:
        ValueError: it is damaged, of another format than `Checkpoints` writes, or has an array of
            something else than numbers or in pieces that are larger than it. TensorStore makes room
            for a whole piece and for a value of whatever kind the file names, and where there is
            none it ends the interpreter.
    """
    described = parse_json(read_utf8(path / "_METADATA"))
    if not described["use_ocdbt"] or described["use_zarr3"]:
        raise ValueError("its arrays are not stored as Zarr 2 in an OCDBT database")
    database = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{path}/"}).result()
    for key in database.list().result():
        if key.endswith(b"/.zarray"):
            _check_array(key.decode(), parse_json(database.read(key).result().value.decode()))
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
    if metadata is None:
        raise ValueError("what it says of its arrays is damaged")
    return metadata.tree


def _check_array(name: str, described: Mapping[str, Any]) -> None:
    shape, pieces, kind = described["shape"], described["chunks"], described["dtype"]
    if not (isinstance(kind, str) and _NUMBER.fullmatch(kind)):
        raise ValueError(f"{name} must be of numbers, it is of {kind!r:.40}")
    if any(piece > max(size, 1) for piece, size in zip(pieces, shape, strict=True)):
        raise ValueError(f"{name} of shape {shape!r:.80} is in pieces of {pieces!r:.80}")


def newest_whole(
    directory: Path, steps: Iterable[int], read: Callable[[int], _Read]
) -> tuple[_Read | None, list[int]]:
    """Reads the newest checkpoint that is whole, and reports the damaged ones before it.

    Args:
        directory: of the checkpoints, for messages.
        steps: of the checkpoints.
        read: reads that of a step; whatever it raises but a `UsageError` tells a damaged one.

    Returns:
        What was read, None if nothing was; and the steps of the damaged ones.
    """
    damaged: list[int] = []
    for step in sorted(steps, reverse=True):
        try:
            with _quiet_garbage():
                return read(step), damaged
        except UsageError:
            raise
        # Orbax has no one exception for a damaged file.
        except Exception as error:
            _logger.warning(
                "checkpoint of step %d in %s is damaged: %s", step, directory, first_line(error)
            )
            damaged.append(step)
    return None, damaged


def restore_arrays(path: Path, shapes: Any) -> Any:
    """Reads some of a checkpoint's arrays as NumPy's, whatever else was saved with them.

    The devices that the state was saved from need not be here.

    Args:
        path: of one step's checkpoint.
        shapes: pytree of what is read.

    Raises:
        ValueError: it holds arrays of other shapes; or another exception where it is damaged.
    """
    path = (path / "state").absolute()
    # Orbax makes NumPy arrays of the file's shapes, whatever those asked for.
    stored: dict[Any, Any] = flatten_dict(stored_arrays(path))
    wanted: dict[Any, Any] = flatten_dict(shapes)
    if any(tuple(stored[name].shape) != leaf.shape for name, leaf in wanted.items()):
        raise ValueError("its parameters are not those of the network in model.json")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(
            path,
            args=ocp.args.PyTreeRestore(shapes, restore_args=as_numpy, partial_restore=True),
        )


@contextlib.contextmanager
def _quiet_garbage() -> Iterator[None]:
    """Keeps quiet what a failed restore leaves behind.

    Orbax abandons its coroutines then, and Python reports each with a thousand lines in all.
    """
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            yield
        finally:
            gc.collect()
            sys.unraisablehook = before
