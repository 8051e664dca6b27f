"""Files of weights, known by their contents."""

import hashlib
from pathlib import Path

from jaxlt.errors import UsageError


def file_digest(what: str, path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal; UsageError says `what` cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{what} {path} must be a readable file: {error.strerror}") from error
