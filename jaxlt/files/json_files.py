"""JSON and text files, written whole or not at all and read with one line for each fault."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError
from jaxlt.files.disk_errors import disk_errors_explained
from jaxlt.files.foreign_files import parse_json, read_utf8

PARTIAL = ".partial"


def claim_directory(path: Path) -> None:
    """Creates a directory where there is none.

    Raises:
        UsageError: it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"workdir {path} must be a writable directory: {error.strerror}"
        ) from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"workdir {path} must be a writable directory, it is read-only")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is either the old or the new one, whole."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a run's directory.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    text = read_text(path)
    try:
        values = parse_json(text)
    except ValueError as error:
        raise UsageError(f"{path} must be JSON, it is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must be a JSON object, it is a {type(values).__name__}")
    return values


def read_text(path: Path) -> str:
    """Reads a text file of a run's directory.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        return read_utf8(path)
    except OSError as error:
        raise UsageError(
            f"run directory {path.parent} must hold a readable {path.name}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} must be text, it is damaged: {error}") from error


def without_nan(value: Any) -> Any:
    """Replaces NaN by null: JSON has none."""
    if isinstance(value, Mapping):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value


def write_atomically(path: Path, text: str) -> None:
    """Writes a text so that the file is either the old or the new one, whole."""
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors_explained(path.parent):
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
