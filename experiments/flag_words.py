"""The words behind a flag: values of its annotation, or the part that they name."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from jaxlt.errors import UsageError
from jaxlt.recipes.part import (
    Choice,
    Part,
    annotations,
    need,
    options,
    own_fields,
    part_name,
    part_types,
)

POSITIONAL = "positional"
"""Mark of a field that the words in front of all flags fill, in `Annotated[TYPE, POSITIONAL]`."""


def choosable(annotation: Any) -> tuple[type[Part], ...]:
    """Returns the parts that a flag chooses among, none for a flag of plain values."""
    return tuple(one for one in part_types(annotation) if issubclass(one, Choice))


def convert(name: str, annotation: Any, words: Sequence[str]) -> Any:
    """Turns the words behind a flag into a value of its annotation.

    Raises:
        UsageError: they are none.
    """
    text = " ".join(words)
    optional = type(None) in options(annotation)
    if optional and text.lower() == "none":
        return None
    inner = next(one for one in options(annotation) if one is not type(None))
    for one in get_args(inner)[1:] if get_origin(inner) is Annotated else ():
        if callable(one):
            return _called(name, one, words)
    if POSITIONAL in get_args(inner)[1:]:
        inner = get_args(inner)[0]
    many = get_origin(inner) is tuple
    if many and text.lower() == "none":
        return ()
    if not many and inner is bool and not words:
        return True
    if not many and len(words) != 1:
        raise UsageError(f"{name} must be {need(annotation)}, got {text or 'nothing'}")
    value: Any = list(words) if many else words[0]
    try:
        return msgspec.convert(value, inner, strict=False, dec_hook=_path)
    except msgspec.ValidationError:
        raise UsageError(_wrong(name, annotation, text)) from None


def _called(name: str, function: Any, words: Sequence[str]) -> Any:
    try:
        return function(words)
    except ValueError as error:
        raise UsageError(f"{name} must be {error}, got {' '.join(words)}") from None


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong(name: str, annotation: Any, text: str) -> str:
    choices = [str(one) for one in choices_of(annotation)]
    if "float" in str(annotation) and not _is_number(text):
        return f"{name} must be a number, {need(annotation)}, got {text or 'nothing'}"
    return f"{name} must be {need(annotation)}, got {text}{nearest(text, choices)}"


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of an annotation that lists them, none for another."""
    inner = next(one for one in options(annotation) if one is not type(None))
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    return get_args(inner) if get_origin(inner) is Literal else ()


def nearest(word: str, names: Sequence[str]) -> str:
    """Returns a remark that names what a word may have been meant for, or nothing."""
    near = difflib.get_close_matches(word, names)
    return f"; the nearest is {' or '.join(near)}" if near else ""


def chosen_part(name: str, annotation: Any, before: Any, words: Sequence[str]) -> Part | None:
    """Returns the part that a flag's word names: NAME, NAME:VALUE or a value of its first field.

    Args:
        name: of the flag.
        annotation: of its field, a union of parts.
        before: the part so far, which hands on what its kind and the new one share.
        words: behind the flag.

    Raises:
        UsageError: they name no part.
    """
    word, kinds = " ".join(words), choosable(annotation)
    kind_name, colon, rest = word.partition(":")
    optional = type(None) in options(annotation)
    if optional and word == "none":
        return None
    for kind in kinds:
        first = (*own_fields(kind), "")[0]
        values = choices_of(annotations(kind)[first]) if first else ()
        if part_name(kind) == kind_name and (not colon or first):
            field = f"--{name}.{first.replace('_', '-')}"
            fields = {first: convert(field, annotations(kind)[first], [rest])} if colon else {}
        elif word in values:
            fields = {first: word}
        else:
            continue
        values = {**_carried(before, kind), **fields}
        missing = {one.name for one in msgspec.structs.fields(kind) if one.required} - set(values)
        if missing or "" in fields.values():
            raise UsageError(f"--{name} must be {kind_name}:{first.upper()}, got {word}")
        return kind(**values)
    names = [str(part_name(kind)) for kind in kinds] + ["none"] * optional
    values = [
        str(v) for k in kinds if own_fields(k) for v in choices_of(annotations(k)[own_fields(k)[0]])
    ]
    shown = ", ".join([*names, *values])
    raise UsageError(
        f"--{name} must be one of {shown}, got {word or 'nothing'}"
        f"{nearest(word, [*names, *values])}"
    )


def part_named(name: str, annotation: Any, word: str) -> Any:
    """Returns the part that a word names, as the flag of a field of this annotation takes it.

    Raises:
        UsageError: it names none.
    """
    return chosen_part(name, annotation, None, [word])


def _carried(before: Any, kind: type[Part]) -> dict[str, Any]:
    """Returns the fields that a part and the one before it have of a base that they share."""
    if isinstance(before, kind):
        return {name: getattr(before, name) for name in kind.__struct_fields__}
    shared = [
        base for base in kind.__mro__ if isinstance(before, base) and base not in (Part, Choice)
    ]
    names = {name for base in shared if issubclass(base, Part) for name in base.__struct_fields__}
    return {name: getattr(before, name) for name in kind.__struct_fields__ if name in names}
