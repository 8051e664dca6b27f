"""Flags of a program, from the fields of frozen dataclasses and of a recipe's parts.

A field of plain values is a flag. A field that holds a part is a flag that chooses the part by
name, and the chosen part's own fields follow a dot: `--method focal_sam --method.rho 0.3`.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.flag_words import (
    choices_of,
    choosable,
)
from jaxlt.recipes.part import (
    Part,
    annotations,
    field_docs,
    own_docs,
    part_name,
    part_types,
)
from jaxlt.recipes.recipe import Recipe


class Flag(NamedTuple):
    """One flag.

    Attributes:
        name: without its dashes.
        path: of the value in its tree.
        annotation: of the value.
        value: the default.
        doc: what it means.
        group: heading under which help shows it.
    """

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


MISSING = "(required)"


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
        yield from part_flags(tree, path)
        return
    hints, docs = typing.get_type_hints(type(tree), include_extras=True), own_docs(type(tree))
    for field in dataclasses.fields(tree):
        value, own = getattr(tree, field.name), (*path, field.name)
        name, doc = field.name.replace("_", "-"), docs.get(field.name, "")
        flag = Flag(name, own, hints[field.name], value, doc, group)
        if flag.kinds:
            yield flag._replace(group=field.name)
            yield from part_flags(value, own, f"{name}.") if isinstance(value, Part) else ()
        elif dataclasses.is_dataclass(value) or isinstance(value, Part):
            yield from flags_of(value, field.name, own)
        else:
            yield flag


def part_flags(part: Part, path: tuple[str | int, ...] = (), prefix: str = "") -> Iterator[Flag]:
    """Yields the flags of a part and of the parts in it."""
    docs, nested = field_docs(type(part)), []
    for field, annotation in annotations(type(part)).items():
        value, own = getattr(part, field), (*path, field)
        name = prefix + field.replace("_", "-")
        if field == "stages" and isinstance(part, Recipe):
            nested += [(value[0], (*own, 0), "")]
            nested += [(one, (*own, n), f"then.{n - 1}.") for n, one in enumerate(value) if n]
            continue
        # One heading for a part and those in it; later stages keep theirs apart.
        group = prefix if prefix.startswith("then.") else prefix.partition(".")[0] or "stage"
        flag = Flag(name, own, annotation, value, docs.get(field, ""), group)
        if not part_types(annotation):
            yield flag
        if flag.kinds:
            yield flag
        if isinstance(value, Part):
            nested.append((value, own, f"{name}."))
    for value, own, inner in nested:
        yield from part_flags(value, own, inner)


def choices(flag: Flag) -> tuple[Any, ...]:
    """Returns the words that a flag takes, of parts their names; none for numbers and texts."""
    return tuple(map(part_name, flag.kinds)) if flag.kinds else choices_of(flag.annotation)
