"""Names of classes in words, for texts about them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import JsonError, parse_json, read_utf8

# Numbers of categories, and of WordNet's sets of synonyms.
_NUMBER = re.compile(r"n?\d+")


def names_in_words(class_names: Sequence[str], file: str | Path | None = None) -> tuple[str, ...]:
    """Returns the name in words of each class of a data source, by label.

    Args:
        class_names: what the source calls its classes, by label.
        file: the names in words, see `read_names`. None takes the source's own names, with blanks
            for slashes and underscores.

    Raises:
        UsageError: a class has no name in words, or the file cannot be read.
    """
    if file is not None:
        try:
            return names_by_label(read_names(file), class_names)
        except KeyError as error:
            raise UsageError(f"class_names {file} must have {error.args[0]}") from error
    if number := next((name for name in class_names if _NUMBER.fullmatch(name)), None):
        raise UsageError(
            "class_names must be a file that says what classes are in words where the data set "
            f"numbers them, got none for class {number!r}"
        )
    return tuple(re.sub("[/_]", " ", name) for name in class_names)


def names_by_label(names: Mapping[str, str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the name in words of each class, by label.

    Args:
        names: from what a data source calls a class (a directory, a WordNet or category number) to
            its name in words. Further classes do no harm.
        class_names: of the data source, by label.

    Raises:
        KeyError: a class has no name in words.
    """
    for label, class_name in enumerate(class_names):
        if class_name not in names:
            raise KeyError(f"a name for class {class_name!r} of label {label}")
    return tuple(names[class_name] for class_name in class_names)


def read_names(path: str | Path) -> dict[str, str]:
    """Reads names in words by what a data source calls the classes.

    Args:
        path: a text file with a class and its name on each line, separated by a tab or else by the
            first blank; or a JSON file: an object from classes to names, a list of objects with
            `id` and `name`, or an object with such a list under `categories`, like iNaturalist's.

    Raises:
        UsageError: the file cannot be read, is of another form, or names a class twice.
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
    return [(_identity(entry["id"]), _name(entry["name"])) for entry in values]


def _identity(value: Any) -> str:
    if type(value) not in (int, str):
        raise TypeError
    return str(value)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise TypeError
    name.encode()  # half of a surrogate pair is no character, and a ValueError here
    return name.strip()
