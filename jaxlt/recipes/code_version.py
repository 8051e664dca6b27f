"""Which code a run was trained by."""

import functools
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxlt
from jaxlt.recipes.part import Part


def code_version(recipe: Part | None = None) -> str:
    """Returns a digest of the code that decides a run's numbers, 12 hexadecimal digits.

    It covers every Python file of the installed package, and those that hold the recipe's parts of
    one's own.

    Args:
        recipe: whose parts count; None for the package alone.
    """
    digest = _of_package().copy()
    for file in sorted(set(_own_files(recipe))):
        digest.update(file.encode() + b"\0" + Path(file).read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def _of_package() -> Any:
    package, digest = Path(jaxlt.__file__).parent, hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = str(file.relative_to(package))
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest


def _own_files(value: Any) -> Iterator[str]:
    """Yields the files of the classes of parts that are none of the package."""
    for inner in value if isinstance(value, tuple) else ():
        yield from _own_files(inner)
    if isinstance(value, Part):
        kind = type(value)
        if kind.__module__.split(".")[0] != "jaxlt" and (file := _file_of(kind)):
            yield file
        for name in value.__struct_fields__:
            yield from _own_files(getattr(value, name))


def _file_of(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (OSError, TypeError):  # typed in by hand, as in a notebook
        return None
