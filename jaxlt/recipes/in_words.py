"""What a field of a part must be and what it is, in the words of messages and of help."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta

from jaxlt.recipes.part import Part, options, part_name, part_types

_KINDS = {float: "a number", int: "an integer", str: "a text", bool: "true or false"}
_KINDS[Path] = "a path"


def need(annotation: Any) -> str:
    """Says what a value of an annotation must be."""
    if get_origin(annotation) is not tuple and (kinds := part_types(annotation)):
        names = ", ".join(kind.__name__ for kind in kinds)
        return f"one of the parts {names}" + ", or none" * (type(None) in options(annotation))
    if type(None) in options(annotation):
        rest = [one for one in options(annotation) if one is not type(None)]
        return f"{need(rest[0])}, or none"
    if get_origin(annotation) is Annotated:
        kind, *marks = get_args(annotation)
        extra = (one.extra for one in marks if isinstance(one, Meta) and one.extra)
        return next(extra, {}).get("need", need(kind))
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if get_origin(annotation) is tuple:
        return f"a list, each {need(get_args(annotation)[0])}"
    return _KINDS.get(annotation, str(annotation))


def shown(value: object) -> str:
    """Writes a value as a flag takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return " ".join(map(shown, value))
    return part_name(value) if isinstance(value, Part) else str(value)
