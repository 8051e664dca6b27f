"""Names of classes in words, for texts about them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import JsonError, parse_json, read_utf8

# Numbers of categories, and of WordNet's sets of synonyms.
_NUMBER = re.compile(r"n?\d+")


def names_in_words(class_names: Sequence[str], file: str | Path | None = None) -> tuple[str, ...]:
    """Returns the name in words of each class that a data source names, by label.

    They are of a file, see `read_names`, or else the source's own, with blanks for slashes and
    underscores. A `UsageError` says which class has none.
    """
    if file is not None:
        names = read_names(file)
        for label, name in enumerate(class_names):
            if name not in names:
                raise UsageError(
                    f"class_names {file} must have a name for class {name!r} of label {label}"
                )
        return tuple(names[name] for name in class_names)
    if number := next((name for name in class_names if _NUMBER.fullmatch(name)), None):
        raise UsageError(
            "class_names must be a file that says what classes are in words where the data set "
            f"numbers them, got none for class {number!r}"
        )
    return tuple(re.sub("[/_]", " ", name) for name in class_names)


def read_names(path: str | Path) -> dict[str, str]:
    """Reads names in words by what a data source calls the classes.

    A text file has a class and its name on each line, separated by a tab or else by the first
    blank. A JSON file is an object from classes to names, a list of objects with `id` and `name`,
    or an object with such a list under `categories`, like iNaturalist's. A `UsageError` says that
    the file cannot be read, is of another form, or names a class twice.
    """
    path = Path(path)
    try:
        text = read_utf8(path)
        pairs = _of_json(text) if path.suffix == ".json" else _of_lines(text)
    except OSError as error:
        raise UsageError(f"class_names {path} must be a readable file: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"class_names {path} must have a class and its name on each line, or be JSON with "
            "names by class or a list of objects with id and name"
            + (f": {error}" if isinstance(error, JsonError) else "")
        ) from error
    names: dict[str, str] = {}
    for key, name in pairs:
        if key in names:
            raise UsageError(f"class_names {path} must name each class once, got {key!r} twice")
        names[key] = name
    return names


def _of_lines(text: str) -> list[tuple[str, str]]:
    lines = (line.strip() for line in text.splitlines() if line.strip())
    pairs = (line.split("\t" if "\t" in line else None, 1) for line in lines)
    return [(key.strip(), _name(name)) for key, name in pairs]


def _of_json(text: str) -> list[tuple[str, str]]:
    values = parse_json(text)
    if isinstance(values, dict):
        values = values.get("categories", values)
    if isinstance(values, dict):
        return [(key, _name(name)) for key, name in values.items()]
    if any(type(entry["id"]) not in (int, str) for entry in values):
        raise TypeError
    return [(str(entry["id"]), _name(entry["name"])) for entry in values]


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise TypeError
    name.encode()  # half of a surrogate pair is no character, and a ValueError here
    return name.strip()
