"""Why the words of a command line are refused, with the nearest that would not be."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.flags import THEN, Flag, choices_of, choosable
from jaxlt.recipes.in_words import need, shown
from jaxlt.recipes.part import annotations, options, own_fields, part_name


def nearest(word: str, names: Sequence[str]) -> str:
    """Returns a remark that names what a word may have been meant for, or nothing."""
    near = difflib.get_close_matches(word, names)
    return f"; the nearest is {' or '.join(near)}" if near else ""


def unknown_flag(name: str, known: Mapping[str, Flag]) -> str:
    """Says which part a flag belongs to, or which flags are nearest."""
    outer, _, field = name.rpartition(".")
    flag, stage = known.get(outer), re.fullmatch(rf"{THEN}\.(\d+)", outer)
    if stage and THEN in known and int(stage[1]) < len(known[THEN].value):
        flag = known[THEN]
    inner = field.replace("-", "_")
    kinds = flag.kinds if flag else ()
    owners = [part_name(kind) for kind in kinds if inner in kind.__struct_fields__]
    if flag and owners and f"{outer}.{field}" not in known:
        return (
            f"--{name} must belong to the chosen part, got --{flag.name} "
            f"{shown(flag.value)}: it is of {', '.join(owners)}; give --{flag.name} {owners[0]} "
            "as well"
        )
    place = ".".join(name.split(".")[:2]) + "."
    if (
        place.startswith(f"{THEN}.")
        and THEN in known
        and not any(one.startswith(place) for one in known)
    ):
        return (
            f"flags must be of a stage that the recipe has, got --{name}: --{THEN} names those "
            f"after the first, now {shown(known[THEN].value) or 'none'}"
        )
    near = [one for one in known if one.rpartition(".")[2] == field]
    near = near or [
        *difflib.get_close_matches(name, [*known, "help", "version"], n=2, cutoff=0.5),
        *(
            f"{one} {part_name(kind)} --{one}.{field}"
            for one, flag in known.items()
            for kind in flag.kinds
            if "." not in one + name and inner in kind.__struct_fields__
        ),
    ]
    hint = f", such as {' or '.join(f'--{one}' for one in near[:3])}" if near else ""
    return f"flags must be those of --help{hint}, got --{name}"


def wrong_value(name: str, annotation: Any, text: str) -> str:
    """Says what a flag of plain values must be."""
    if "float" in str(annotation) and not _is_number(text):
        return f"{name} must be a number, {need(annotation)}, got {text or 'nothing'}"
    choices = [str(one) for one in choices_of(annotation)]
    return f"{name} must be {need(annotation)}, got {text}{nearest(text, choices)}"


def no_part(name: str, annotation: Any, word: str) -> str:
    """Says which parts a flag chooses among."""
    kinds = choosable(annotation)
    names = [*map(part_name, kinds), *["none"] * (type(None) in options(annotation))]
    for kind in kinds:
        for first in own_fields(kind)[:1]:
            names += map(str, choices_of(annotations(kind)[first]))
    shown = ", ".join(names)
    return f"--{name} must be one of {shown}, got {word or 'nothing'}{nearest(word, names)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
