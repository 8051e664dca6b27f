"""Reads the words of the command line into a program's flags."""

import copy
import dataclasses
import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from experiments.flag_words import (
    POSITIONAL,
    chosen_part,
    convert,
    nearest,
)
from experiments.flags import MISSING, Flag, flags_of
from jaxlt.errors import UsageError
from jaxlt.recipes.part import (
    Part,
    annotations,
    need,
    part_name,
    part_types,
)
from jaxlt.recipes.recipe import Recipe


def parse(default: Any, words: Sequence[str]) -> Any:
    """Reads words of the command line into a copy of a dataclass.

    Args:
        default: the dataclass, see `blank`.
        words: of the command line.

    Raises:
        UsageError: a flag is unknown or of a part that is not chosen, or a value is wrong.
    """
    given = _split(default, words)
    default = with_parts(default, words)
    known = {flag.name: flag for flag in flags_of(default)}
    if "seeds" in known:
        known["seed"] = known["seeds"]
    given = _with_spare_words(default, given, known)
    changes: dict[tuple[str | int, ...], Any] = {}
    for name, values in given:
        flag = known.get(name)
        if flag is None and name.startswith("no-") and name[3:] in known:
            flag = known[name[3:]]
            if flag.annotation is not bool or values:
                shown = " ".join([f"--{name}", *values])
                raise UsageError(f"--{flag.name} must be {need(flag.annotation)}, got {shown}")
            values = ["false"]
        if name == "then" and (path := _path_of_recipe(default)):
            changes[*path, "stages"] = getattr(default, path[0]).stages
        elif flag is None:
            raise UsageError(_unknown(name, known))
        elif flag.kinds:
            changes[flag.path] = flag.value
        else:
            changes[flag.path] = convert(f"--{name}", flag.annotation, values)
    for flag in known.values():
        if flag.value is MISSING and flag.path not in changes:
            raise UsageError(f"--{flag.name} must be given, got nothing (see --help)")
    return _changed(default, dict(sorted(changes.items(), key=lambda one: len(one[0]))))


def _with_spare_words(
    default: Any, given: list[tuple[str, list[str]]], known: dict[str, Flag]
) -> list[tuple[str, list[str]]]:
    """Gives the words behind a flag's one value to the positional field, where there is one."""
    positional = _positional(default)
    kept, spare = [], []
    for name, words in given:
        flag = known.get(name)
        most = len(words)
        if flag is not None and positional and name != positional[0]:
            if isinstance(flag.value, bool):
                most = 1 if words[:1] in (["true"], ["false"]) else 0
            elif "tuple[" not in str(flag.annotation):
                most = 1
        kept.append((name, words[:most]))
        spare += words[most:]
    if not spare:
        return kept
    before = next((words for name, words in kept if name == positional[0]), [])
    others = [one for one in kept if one[0] != positional[0]]
    return [(positional[0], [*before, *spare]), *others]


def _positional(default: Any) -> list[str]:
    hints = typing.get_type_hints(type(default), include_extras=True)
    return [name for name, hint in hints.items() if POSITIONAL in get_args(hint)[1:]]


def _split(default: Any, words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns each flag with its words, those in front under the positional field's name."""
    given: list[tuple[str, list[str]]] = []
    positional = _positional(default)
    loose: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            given.append((name.replace("_", "-"), [value] if equals else []))
        elif given:
            given[-1][1].append(word)
        else:
            loose.append(word)
    if loose and not positional:
        raise UsageError(f"arguments must be flags such as --workdir, got {' '.join(loose)}")
    return [(positional[0], loose), *given] if loose else given


def with_parts(default: Any, words: Sequence[str]) -> Any:
    """Puts the parts that the words choose in place, the outer ones first.

    Whether they go together is not looked at: more may change with them.
    """
    given = _split(default, words)
    for name, words in sorted(given, key=lambda one: one[0].count(".")):
        flag = {flag.name: flag for flag in flags_of(default)}.get(name)
        if name == "then" and _path_of_recipe(default):
            default = _with_stages(default, words)
        elif flag is not None and flag.kinds:
            default = _put(
                default, flag.path, chosen_part(flag.name, flag.annotation, flag.value, words)
            )
    return default


def _with_stages(default: Any, words: Sequence[str]) -> Any:
    kinds = {str(part_name(one)): one for one in part_types(annotations(Recipe)["stages"])}
    choices = [*kinds, "none"]
    for word in words or ["nothing"]:
        if word not in choices:
            near = nearest(word, choices)
            raise UsageError(f"--then must be some of {', '.join(choices)}, got {word}{near}")
    path = _path_of_recipe(default)
    later = tuple(kinds[word]() for word in words if word != "none")
    first = getattr(default, path[0]).stages[0]
    return _put(default, (*path, "stages"), (first, *later))


def _path_of_recipe(default: Any) -> tuple[str, ...]:
    """Returns the field of a dataclass that holds a recipe, as a path; empty for none."""
    fields = (field.name for field in dataclasses.fields(default))
    return tuple(name for name in fields if isinstance(getattr(default, name), Recipe))


def _put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Returns a tree with one value changed, and nothing checked."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        return (*tree[:first], _put(tree[first], tuple(rest), value), *tree[first + 1 :])
    inner = _put(getattr(tree, first), tuple(rest), value)
    if not isinstance(tree, Part):
        return dataclasses.replace(tree, **{first: inner})
    changed = copy.copy(tree)
    msgspec.structs.force_setattr(changed, first, inner)
    return changed


def _unknown(name: str, known: dict[str, Flag]) -> str:
    """Says which part a flag belongs to, or which flags are nearest."""
    outer, _, field = name.rpartition(".")
    flag = known.get(outer)
    if flag is not None and flag.kinds:
        owners = [
            str(part_name(kind))
            for kind in flag.kinds
            if field.replace("-", "_") in kind.__struct_fields__
        ]
        chosen = "none" if flag.value is None else part_name(flag.value)
        if owners:
            return (
                f"--{name} must belong to the chosen part, got --{outer} {chosen}: it is of "
                f"{', '.join(owners)}; give --{outer} {owners[0]} as well"
            )
    short = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    near = short or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f", such as {' or '.join(f'--{one}' for one in near)}" if near else ""
    return f"flags must be those of --help{hint}, got --{name}"


def _changed(tree: Any, changes: dict[tuple[str | int, ...], Any]) -> Any:
    """Returns a tree with values at some paths changed, each dataclass and recipe made once."""
    if not changes:
        return tree
    if isinstance(tree, Part):
        return _changed_part(tree, changes)
    inner: dict[str, dict[tuple[str | int, ...], Any]] = {}
    fields: dict[str, Any] = {}
    for (first, *rest), value in changes.items():
        if rest:
            inner.setdefault(str(first), {})[tuple(rest)] = value
        else:
            fields[str(first)] = value
    for name, some in inner.items():
        fields[name] = _changed(getattr(tree, name), some)
    return dataclasses.replace(tree, **fields)


def _changed_part(part: Part, changes: dict[tuple[str | int, ...], Any]) -> Part:
    # As plain values first: what must fit together is checked when all changes are in.
    values = msgspec.to_builtins(part)
    for path, value in changes.items():
        place = values
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = msgspec.to_builtins(value)
    try:
        return msgspec.convert(values, type(part))
    except msgspec.ValidationError as error:
        message = re.sub(r" - at `[^`]*`$", "", str(error))
        raise UsageError(message) from None
