"""Reads the words of the command line into a program's flags."""

import copy
import dataclasses
import itertools
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import msgspec

from experiments import flag_refusals
from experiments.flags import MISSING, POSITIONAL, THEN, Flag, choices_of, choosable, flags_of
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded
from jaxlt.recipes.in_words import need
from jaxlt.recipes.part import Choice, Part, annotations, options, own_fields, part_name

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Each flag with the words behind it.
_Given: TypeAlias = list[tuple[str, list[str]]]


def parse(default: Any, words: Sequence[str]) -> Any:
    """Reads words of the command line into a copy of a dataclass, or raises UsageError."""
    tree = with_parts(default, words)
    known = _by_name(tree)
    for name, values in _with_spare_words(_split(words, known), known):
        flag = known.get(name)
        if flag is None and name.startswith("no-") and name[3:] in known:
            flag = known[name[3:]]
            if flag.annotation is not bool or values:
                shown = " ".join([f"--{name}", *values])
                raise UsageError(f"--{flag.name} must be {need(flag.annotation)}, got {shown}")
            values = ["false"]
        if flag is None:
            raise UsageError(flag_refusals.unknown_flag(name, known))
        if not flag.kinds:
            tree = _put(tree, flag.path, convert(f"--{name}", flag.annotation, values))
    for flag in flags_of(tree):
        if flag.value is MISSING:
            raise UsageError(f"--{flag.name} must be given, got nothing (see --help)")
    return _checked(tree)


def with_parts(tree: Any, words: Sequence[str]) -> Any:
    """Puts the parts that the words choose in place, the outer ones first.

    Whether they go together is not looked at: more may change with them.
    """
    for name, values in sorted(_split(words, _by_name(tree)), key=lambda one: one[0].count(".")):
        flag = _by_name(tree).get(name)
        if flag is not None and flag.name == THEN:
            first, *_ = operator.attrgetter(".".join(map(str, flag.path)))(tree)
            tree = _put(tree, flag.path, (first, *_later_stages(flag, values)))
        elif flag is not None and flag.kinds:
            part = chosen_part(flag.name, flag.annotation, flag.value, values)
            tree = _put(tree, flag.path, part)
    return tree


def _by_name(tree: Any) -> dict[str, Flag]:
    known = {flag.name: flag for flag in flags_of(tree)}
    return known | ({"seed": known["seeds"]} if "seeds" in known else {})


def _split(words: Sequence[str], known: Mapping[str, Flag]) -> _Given:
    """Returns each flag with its words, those in front under the positional flag's name."""
    given: _Given = []
    short = {name.rpartition(".")[2] for name in known}
    for word in words:
        if word[:1] == "-" and word[1:].replace("_", "-") in short:
            raise UsageError(f"flags must begin with --, got {word}; give -{word}")
    loose = list(itertools.takewhile(lambda word: not _is_flag(word), words))
    if loose:
        positional = _positional(known)
        if positional is None:
            raise UsageError(f"arguments must be flags such as --workdir, got {' '.join(loose)}")
        given.append((positional, []))
    for word in words:
        if _is_flag(word):
            name, equals, value = word[2:].partition("=")
            given.append((name.replace("_", "-"), [value] if equals else []))
        else:
            given[-1][1].append(word)
    return given


def _is_flag(word: str) -> bool:
    return word.startswith("--") and len(word) > 2


def _positional(known: Mapping[str, Flag]) -> str | None:
    return next((name for name, flag in known.items() if flag.is_positional), None)


def _with_spare_words(given: _Given, known: Mapping[str, Flag]) -> _Given:
    """Gives the words behind a flag's one value to the positional flag, where there is one."""
    positional = _positional(known)
    if positional is None:
        return given
    kept: _Given = []
    spare: list[str] = []
    for name, words in given:
        flag, most = known.get(name), len(words)
        if flag is not None and isinstance(flag.value, bool):
            most = 1 if words[:1] in (["true"], ["false"]) else 0
        elif flag is not None and name != positional and "tuple[" not in str(flag.annotation):
            most = 1
        kept.append((name, words[:most]))
        spare += words[most:]
    before = [word for name, words in kept if name == positional for word in words]
    others = [one for one in kept if one[0] != positional]
    return [*([(positional, [*before, *spare])] if before or spare else []), *others]


def convert(name: str, annotation: Any, words: Sequence[str]) -> Any:
    """Turns the words behind a flag into a value of its annotation, or raises UsageError."""
    text = " ".join(words)
    inner = next(one for one in options(annotation) if one is not type(None))
    if inner != annotation and text.lower() == "none":
        return None
    for mark in get_args(inner)[1:] if get_origin(inner) is Annotated else ():
        if callable(mark):
            try:
                return mark(words)
            except UsageError:
                raise
            except ValueError as error:
                raise UsageError(f"{name} must be {error}, got {text}") from None
        if mark == POSITIONAL:
            inner = get_args(inner)[0]
    many = get_origin(inner) is tuple
    if many and text.lower() == "none":
        return ()
    if inner is bool and not words:
        return True
    if not many and len(words) != 1:
        wanted = "one word" if inner is str and words else need(annotation)
        raise UsageError(f"{name} must be {wanted}, got {text or 'nothing'}")
    if "float" in str(inner):
        # JSON, by which msgspec goes, has neither .8 nor 1. nor +1.
        words = [repr(float(word)) if _DECIMAL.fullmatch(word) else word for word in words]
    value: Any = list(words) if many else words[0]
    try:
        return msgspec.convert(value, inner, strict=False, dec_hook=lambda _, text: expanded(text))
    except msgspec.ValidationError as error:
        # A path has reasons of its own.
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        raise UsageError(flag_refusals.wrong_value(name, annotation, text)) from None


def chosen_part(name: str, annotation: Any, before: Any, words: Sequence[str]) -> Any:
    """Returns the part that a flag's word names: NAME, NAME:VALUE or a value of its first field.

    The part `before` it hands on what its kind and the new one share.
    """
    word = " ".join(words)
    kind_name, colon, rest = word.partition(":")
    if word == "none" and type(None) in options(annotation):
        return None
    for kind in choosable(annotation):
        first = (*own_fields(kind), "")[0]
        if part_name(kind) == kind_name and (not colon or first):
            field = f"--{name}.{first.replace('_', '-')}"
            fields = {first: convert(field, annotations(kind)[first], [rest])} if colon else {}
        elif (
            not first
            or kind_name not in choices_of(annotations(kind)[first])
            or (colon and "weights" not in kind.__struct_fields__)
        ):
            continue
        else:
            fields = {first: kind_name, **({"weights": rest} if colon else {})}
        values = {**_carried(before, kind), **fields}
        missing = {one.name for one in msgspec.structs.fields(kind) if one.required} - set(values)
        if missing or "" in fields.values():
            raise UsageError(
                f"--{name} must be {kind_name}:{[first, *fields][-1].upper()}, got {word}"
            )
        return kind(**values)
    raise UsageError(flag_refusals.no_part(name, annotation, word))


def _carried(before: Any, kind: type[Part]) -> dict[str, Any]:
    """Returns the fields that a part and the one before it have of a base that they share."""
    shared = [
        base for base in kind.__mro__ if isinstance(before, base) and base not in (Part, Choice)
    ]
    names = {name for base in shared if issubclass(base, Part) for name in base.__struct_fields__}
    return {name: getattr(before, name) for name in kind.__struct_fields__ if name in names}


def _later_stages(flag: Flag, words: Sequence[str]) -> list[Part]:
    kinds = {str(part_name(one)): one for one in flag.kinds}
    choices = [*kinds, "none"]
    for word in words or ["nothing"]:
        if word not in choices:
            near = flag_refusals.nearest(word, choices)
            raise UsageError(f"--{THEN} must be some of {', '.join(choices)}, got {word}{near}")
    return [kinds[word]() for word in words if word != "none"]


def _put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Returns a tree with one value changed, and nothing checked."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        return (*tree[:first], _put(tree[first], tuple(rest), value), *tree[first + 1 :])
    changed = copy.copy(tree)
    change = msgspec.structs.force_setattr if isinstance(tree, Part) else object.__setattr__
    change(changed, first, _put(getattr(tree, first), tuple(rest), value))
    return changed


def _checked(tree: Any) -> Any:
    """Returns a tree made anew, so that each dataclass and part checks what it holds now."""
    if isinstance(tree, Part):
        try:
            return msgspec.convert(msgspec.to_builtins(tree), type(tree))
        except msgspec.ValidationError as error:
            raise UsageError(re.sub(r" - at `[^`]*`$", "", str(error))) from None
    if not dataclasses.is_dataclass(tree):
        return tree
    fields = {field.name: _checked(getattr(tree, field.name)) for field in dataclasses.fields(tree)}
    return dataclasses.replace(tree, **fields)  # pyright: ignore[reportArgumentType] (an instance)
