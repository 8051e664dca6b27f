"""A part of a recipe: a small frozen structure that checks itself and says what its fields mean."""

import ast
import functools
import inspect
import itertools
import math
import operator
import textwrap
import types
import typing
from typing import Annotated, Any, NamedTuple, Self, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from jaxlt.errors import UsageError

# Each says in `extra` what a value must be.
NonNegative: TypeAlias = Annotated[float, Meta(ge=0, extra={"need": "at least 0"})]
Positive: TypeAlias = Annotated[float, Meta(gt=0, extra={"need": "positive"})]
AtLeastOne: TypeAlias = Annotated[float, Meta(ge=1, extra={"need": "at least 1"})]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1, extra={"need": "between 0 and 1"})]
BelowOne: TypeAlias = Annotated[float, Meta(ge=0, lt=1, extra={"need": "in [0, 1)"})]
Count: TypeAlias = Annotated[int, Meta(ge=1, extra={"need": "an integer of at least 1"})]
CountOrZero: TypeAlias = Annotated[int, Meta(ge=0, extra={"need": "an integer of at least 0"})]

# What an int32 holds: steps and images are counted by it.
_LARGEST = 2**31 - 1


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all parts have in common.

    A part of your own is a frozen subclass of `Method`, `Loss` or another kind of part. Each field
    has a type, a default, and a docstring that says its meaning and unit. To make one with a field
    of another type or out of its range raises UsageError.
    """

    def __post_init__(self):
        for name, annotation in annotations(type(self)).items():
            value = getattr(self, name)
            kinds = part_types(annotation)
            value = (_checked_part if kinds else _checked)(name, annotation, value)
            # One form of each value: a list becomes a tuple, an integer a float.
            msgspec.structs.force_setattr(self, name, value)

    def check(self, name: str, holds: bool, need: str) -> None:
        """Raises UsageError unless a condition holds.

        Args:
            name: the field, or `part.field`.
            holds: the condition.
            need: what the field must be.
        """
        check(name, operator.attrgetter(name)(self), holds, need)

    def replace(self, **changes: Any) -> Self:
        """Returns the same part with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Choice(Part, frozen=True, tag_field="name"):
    """A part of which a recipe has one kind or another; its name is its tag."""


class Clock(NamedTuple):
    """Turns the epochs of a stage into steps; `num_images` are the training images."""

    num_images: int
    batch_size: int
    epochs: int

    def steps(self, epochs: float) -> int:
        """Returns how many steps so many epochs take, rounded up."""
        return math.ceil(epochs * self.num_images / self.batch_size)


def part_name(part: type[Part] | Part) -> str:
    """Returns the name by which flags and files call a part."""
    return str((part if isinstance(part, type) else type(part)).__struct_config__.tag)


def part_word(part: Part) -> str:
    """Returns NAME:FIELD, as a flag takes a part with its field, NAME for one without fields."""
    fields = ":".join(map(str, msgspec.structs.astuple(part)))
    return f"{part_name(part)}:{fields}" if fields else part_name(part)


def own_fields(part: type[Part]) -> tuple[str, ...]:
    """Returns the fields that a kind of part has beside those of its bases."""
    inherited = {name for base in part.__mro__[1:] for name in getattr(base, "__annotations__", ())}
    return tuple(name for name in part.__struct_fields__ if name not in inherited)


@functools.cache
def annotations(part: type[Part]) -> dict[str, Any]:
    """Returns the annotation of each field, in order."""
    hints = typing.get_type_hints(part, include_extras=True)
    return {name: hints[name] for name in part.__struct_fields__}


def options(annotation: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def part_types(annotation: Any) -> tuple[type[Part], ...]:
    """Returns the kinds of part that a field may hold, none for a field of plain values."""
    if get_origin(annotation) is tuple:
        return part_types(get_args(annotation)[0])
    return tuple(
        one for one in options(annotation) if isinstance(one, type) and issubclass(one, Part)
    )


def check(name: str, value: object, holds: bool, need: str) -> None:
    """Raises UsageError, saying what a field must be, unless the condition holds."""
    if not holds:
        from jaxlt.recipes.in_words import shown

        raise UsageError(f"{name} must be {need}, got {shown(value)}")


def _checked(name: str, annotation: Any, value: Any) -> Any:
    try:
        plain = msgspec.convert(_plain(value), annotation)
    except msgspec.ValidationError:
        raise _refusal(name, annotation, value) from None
    for number in plain if isinstance(plain, tuple) else (plain,):
        if isinstance(number, float):
            check(name, value, math.isfinite(number), "finite")
        elif isinstance(number, int):
            check(name, value, number <= _LARGEST, f"at most {_LARGEST}")
    return plain


def _plain(value: Any) -> Any:
    """Returns Python's own numbers for those of NumPy and JAX."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _checked_part(name: str, annotation: Any, value: Any) -> Any:
    kinds: tuple[type, ...] = part_types(annotation)
    # Of a base that they share there may be other kinds, of one's own.
    shared = set(kinds[0].__mro__).intersection(*(kind.__mro__ for kind in kinds))
    bases = tuple(one for one in shared if issubclass(one, Part) and one not in (Part, Choice))
    many = get_origin(annotation) is tuple
    if many and isinstance(value, list):
        value = tuple(value)
    some = value if many and isinstance(value, tuple) else (value,)
    optional = value is None and type(None) in options(annotation)
    holds = optional or all(isinstance(one, bases or kinds) for one in some)
    if not holds or isinstance(value, tuple) != many:
        raise _refusal(name, annotation, value)
    return value


def _refusal(name: str, annotation: Any, value: object) -> UsageError:
    # Words know parts, and most runs refuse nothing.
    from jaxlt.recipes.in_words import need, shown

    return UsageError(f"{name} must be {need(annotation)}, got {shown(value)}")


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Returns the docstring of each field of a class, by name, those of its bases among them."""
    return {name: doc for base in reversed(kind.__mro__) for name, doc in _own_docs(base).items()}


@functools.cache
def _own_docs(kind: type) -> dict[str, str]:
    """Returns the docstrings behind the fields that a class declares itself, by name."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # of a class without a file, as in a notebook
        return {}
    (tree,) = ast.parse(textwrap.dedent(source)).body
    return {
        ast.unparse(field.target): " ".join(ast.literal_eval(doc.value).split())
        for field, doc in itertools.pairwise(typing.cast(ast.ClassDef, tree).body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)
    }
