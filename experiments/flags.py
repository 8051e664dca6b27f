"""Flags of a program, from the fields of frozen dataclasses and of a recipe's parts.

A field of plain values is a flag. A field that holds a part is a flag that chooses the part by
name, and the chosen part's own fields follow a dot: `--method focal_sam --method.rho 0.3`.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jaxlt.recipes.part import Choice, Part, annotations, field_docs, options, part_types
from jaxlt.recipes.recipe import Recipe

POSITIONAL = "positional"
"""Marks a field that the words in front of all flags fill; a text behind it is help's for them."""
MISSING = "(required)"
THEN = "then"
"""The flag that names the stages after a recipe's first."""
_THEN_DOC = (
    "Stages after the first in place of the recipe's own, with the defaults of their kinds; their "
    "flags are then.0.epochs and so on."
)


class Flag(NamedTuple):
    """One flag: its name without dashes, where its value stands in the tree, what help shows."""

    name: str
    path: tuple[str | int, ...]
    annotation: Any
    value: Any
    doc: str
    group: str

    @property
    def kinds(self) -> tuple[type[Part], ...]:
        """The parts that it chooses among, none for a flag of plain values."""
        return choosable(self.annotation)

    @property
    def is_positional(self) -> bool:
        """Whether the words in front of all flags are its own."""
        return POSITIONAL in get_args(self.annotation)[1:]


def choosable(annotation: Any) -> tuple[type[Part], ...]:
    """Returns the parts that a flag chooses among, none for a flag of plain values."""
    return tuple(one for one in part_types(annotation) if issubclass(one, Choice))


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of an annotation that lists them, none for another."""
    inner = next(one for one in options(annotation) if one is not type(None))
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    return get_args(inner) if get_origin(inner) is Literal else ()


def blank(arguments_type: type) -> Any:
    """Returns a dataclass with its defaults, and marks where it has none."""
    required = {
        field.name: MISSING
        for field in dataclasses.fields(arguments_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return arguments_type(**required)


def flags_of(tree: Any, group: str = "", path: tuple[str | int, ...] = ()) -> Iterator[Flag]:
    """Yields the flags of a dataclass, in the order of its fields; those of a recipe by part."""
    if isinstance(tree, Part):
        yield from _part_flags(tree, path)
        return
    hints, docs = typing.get_type_hints(type(tree), include_extras=True), field_docs(type(tree))
    for field in dataclasses.fields(tree):
        value, own = getattr(tree, field.name), (*path, field.name)
        name, doc = field.name.replace("_", "-"), docs.get(field.name, "")
        flag = Flag(name, own, hints[field.name], value, doc, group)
        if flag.kinds:
            yield flag._replace(group=field.name)
            yield from _part_flags(value, own, f"{name}.") if isinstance(value, Part) else ()
        elif dataclasses.is_dataclass(value) or isinstance(value, Part):
            yield from flags_of(value, field.name, own)
        else:
            yield flag


def _part_flags(part: Part, path: tuple[str | int, ...], prefix: str = "") -> Iterator[Flag]:
    docs, nested = field_docs(type(part)), []
    for field, annotation in annotations(type(part)).items():
        value, own = getattr(part, field), (*path, field)
        if field == "stages" and isinstance(part, Recipe):
            first, *later = value
            yield Flag(THEN, own, annotation, tuple(later), _THEN_DOC, "stage")
            nested += [(first, (*own, 0), "")]
            nested += [(one, (*own, 1 + n), f"{THEN}.{n}.") for n, one in enumerate(later)]
            continue
        name = prefix + field.replace("_", "-")
        # One heading for a part and those in it; later stages keep theirs apart.
        group = prefix if prefix.startswith(f"{THEN}.") else prefix.partition(".")[0] or "stage"
        flag = Flag(name, own, annotation, value, docs.get(field, ""), group)
        if flag.kinds or not part_types(annotation):
            yield flag
        if isinstance(value, Part):
            nested.append((value, own, f"{name}."))
    for value, own, inner in nested:
        yield from _part_flags(value, own, inner)
