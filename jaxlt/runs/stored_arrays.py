"""What a checkpoint's files say of its arrays, looked at before a library acts on it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
import tensorstore as ts

from jaxlt.files.foreign_files import parse_json, read_utf8

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
