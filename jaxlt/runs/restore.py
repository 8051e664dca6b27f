"""Checkpoints as others may have left them: what their files say, the newest that is whole."""

import contextlib
import dataclasses
import gc
import itertools
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

from jaxlt.devices.cluster import texts_of_all
from jaxlt.devices.processes import by_first, on_all_processes
from jaxlt.errors import UsageError, first_line
from jaxlt.files.foreign_files import parse_json, read_utf8
from jaxlt.runs.checkpoint import FORMAT, digest, storable

_Read = TypeVar("_Read")

_logger = logging.getLogger(__name__)

# Of numbers; records and texts, which may be of any size, have capital letters or are lists.
_NUMBER = re.compile(r"[<>|]?[a-z][a-z0-9_]{0,19}")


def restore_newest(
    manager: ocp.CheckpointManager, steps: Iterable[int], template_at: Callable[[int], Any]
) -> tuple[Any, dict[str, Any]]:
    """Restores the newest whole checkpoint of some steps, see `Checkpoints.restore_latest`."""
    directory, formats = Path(manager.directory), []

    def restore(step: int) -> tuple[Any, dict[str, Any]]:
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = _agreed(lambda: manager.restore(step, args=args)["record"])
        formats.append(record.pop("format", 0))
        if formats[-1] > FORMAT:
            reason = (
                f"checkpoint of step {step} in {directory} must be of format {FORMAT} or earlier, "
                f"got {formats[-1]}: a later version of jaxlt wrote it"
            )
            raise on_all_processes(UsageError(reason))
        template = template_at(step)
        state = _agreed(lambda: _read_state(manager, step, storable(template)))
        if record.pop("digest") != digest(state):
            raise ValueError("its contents do not match their digest")
        key = jax.random.wrap_key_data(state.key)
        return dataclasses.replace(state, key=key, frozen=template.frozen), record

    restored, damaged = newest_whole(directory, steps, restore)
    if restored is None:
        earlier = ": an earlier version wrote them" if min(formats, default=FORMAT) < FORMAT else ""
        reason = (
            f"checkpoints in {directory} must be readable, got {len(damaged)} that are not"
            f"{earlier}; they are left as they are, choose another workdir to start again"
        )
        raise on_all_processes(UsageError(reason))
    by_first(lambda: _set_aside(directory, damaged))
    if damaged:
        manager.reload()
    return restored


def _read_state(manager: ocp.CheckpointManager, step: int, template: Any) -> Any:
    stored_arrays(Path(manager.directory) / str(step) / "state")
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
    return manager.restore(step, args=args)["state"]


def _agreed(read: Callable[[], Any]) -> Any:
    """Reads on all processes: what one of them cannot read, none restores."""
    value, fault = None, ""
    try:
        value = read()
    except Exception as error:
        fault = first_line(error)
    for found in texts_of_all(fault):
        if found:
            raise ValueError(found)
    return value


def _set_aside(directory: Path, steps: Iterable[int]) -> None:
    """Moves damaged checkpoints out of the way of the ones that training will write again."""
    for step in steps:
        names = itertools.chain([""], (f"-{again}" for again in itertools.count(2)))
        places = (directory / f"damaged-{step}{name}" for name in names)
        aside = next(place for place in places if not place.exists())
        (directory / str(step)).rename(aside)
        _logger.warning("checkpoint of step %d is set aside as %s", step, aside)


def stored_arrays(path: Path) -> Any:
    """Returns the tree of a checkpoint's arrays, each with its `shape`, without reading them.

    Raises ValueError also for arrays of something else than numbers, or in pieces larger than they
    are: TensorStore makes room for whatever a file names, or else ends the interpreter.
    """
    described = parse_json(read_utf8(path / "_METADATA"))
    # Orbax before 0.12 does not say whether it is OCDBT's.
    is_database = described.get("use_ocdbt", (path / "manifest.ocdbt").exists())
    if not is_database or described["use_zarr3"]:
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
        raise ValueError(f"{name} must be of numbers, got {kind!r:.40}")
    if any(piece > max(size, 1) for piece, size in zip(pieces, shape, strict=True)):
        raise ValueError(f"{name} must be in pieces within {shape!r:.80}, got {pieces!r:.80}")


def newest_whole(
    directory: Path, steps: Iterable[int], read: Callable[[int], _Read]
) -> tuple[_Read | None, list[int]]:
    """Reads the newest checkpoint that is whole, and returns it with the steps of damaged ones.

    Whatever `read` raises but a `UsageError` tells a damaged one.
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
    """Reads those of a step's arrays that `shapes` has as NumPy's, on whatever devices."""
    path = (path / "state").absolute()
    # Orbax makes NumPy arrays of the file's shapes, whatever those asked for.
    stored: dict[Any, Any] = flatten_dict(stored_arrays(path))
    wanted: dict[Any, Any] = flatten_dict(shapes)
    if any(tuple(stored[name].shape) != leaf.shape for name, leaf in wanted.items()):
        raise ValueError("its parameters are not those of the network in model.json")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    with ocp.PyTreeCheckpointer() as checkpointer:
        args = ocp.args.PyTreeRestore(shapes, restore_args=as_numpy, partial_restore=True)
        return checkpointer.restore(path, args=args)


@contextlib.contextmanager
def _quiet_garbage() -> Iterator[None]:
    """Keeps quiet what Python would say, in a thousand lines, of coroutines that Orbax abandons."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            yield
        except Exception:
            gc.collect()
            raise
        finally:
            sys.unraisablehook = before
