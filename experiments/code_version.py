"""Which code a run was trained by."""

import functools
import hashlib
from pathlib import Path

import jaxlt

# What of this package computes, besides the library: the rest arranges runs and shows them.
_COMPUTING = (
    *("build", "built_stage", "experiment", "feed"),
    *("methods", "parameters", "paths", "stage"),
)


@functools.cache
def code_version() -> str:
    """Returns a digest of the source code that decides a run's numbers, 12 hexadecimal digits."""
    library = Path(jaxlt.__file__).parent
    files = sorted(library.rglob("*.py"))
    files += [Path(__file__).parent / f"{name}.py" for name in _COMPUTING]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
