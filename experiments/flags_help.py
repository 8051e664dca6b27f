"""The text of `--help`: the flags of a program and of the parts that are chosen, by part."""

import re
import textwrap
from typing import Any, get_args

from experiments.flags import POSITIONAL, THEN, Flag, choices_of, flags_of
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.part import part_name

_WIDTH = 120
_FLAGS_WIDTH = 36
_END = "In brackets is the value where the flag is not given. --version prints the version."


def render(arguments: Any, program: str, description: str) -> str:
    """Renders the help of a program from its dataclass of flags, with the chosen parts in place.

    The dataclass may have class attributes: `CHOSEN`, flags whose values the program chooses once
    it runs, and `REFUSED`, what the names of flags begin with that are not for its users.
    """
    chosen, refused = getattr(arguments, "CHOSEN", ()), getattr(arguments, "REFUSED", ())
    loose = "".join(f" {_words(one)}" for one in flags_of(arguments) if one.is_positional)
    lines = [f"usage: python3 -m {program}{loose} [flags]", *textwrap.wrap(description, _WIDTH)]
    groups: dict[str, list[Flag]] = {}
    for flag in flags_of(arguments):
        known = flag._replace(value="chosen") if flag.name in chosen else flag
        if not flag.name.startswith(refused):
            groups.setdefault(flag.group, []).append(known)
    later: list[Flag] = []
    for group, flags in groups.items():
        if group.startswith("then."):
            later += flags
            continue
        lines.append(f"{group}:" if group else "")
        lines += [line for flag in flags for line in _lines(flag)]
    if later:
        lines.append("later stages, whose flags mean what those of the first mean:")
        text = " ".join(f"--{flag.name} [{_value(flag)}]" for flag in later)
        lines += [f"  {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]
    return "\n".join([*lines, _END])


def _lines(flag: Flag) -> list[str]:
    words = map(part_name, flag.kinds) if flag.kinds else choices_of(flag.annotation)
    names, doc = [*map(str, words)], flag.doc
    # Of a recipe's hundred flags the first sentence; the program's own are told whole.
    if flag.group:
        doc = re.split(r"(?<=\.) ", doc, maxsplit=1)[0]
    # Not twice, where the sentence has them.
    if not set(names).issubset(re.findall(r"\w+", doc)):
        doc = f"{', '.join(names)}. {doc}".rstrip()
    named = _words(flag) if flag.is_positional else f"--{flag.name} {_metavar(flag)}"
    left = f"  {named}".rstrip()
    value = "" if flag.is_positional else f" [{_value(flag)}]"
    wrapped = textwrap.wrap(f"{doc}{value}", _WIDTH - _FLAGS_WIDTH)
    if len(left) < _FLAGS_WIDTH:
        left = left.ljust(_FLAGS_WIDTH) + wrapped.pop(0)
    return [left, *(" " * _FLAGS_WIDTH + line for line in wrapped)]


def _words(flag: Flag) -> str:
    """Returns what help calls the words in front of all flags."""
    marks = [one for one in get_args(flag.annotation)[1:] if isinstance(one, str)]
    many = " ..." * ("tuple[" in str(flag.annotation))
    return next((one for one in marks if one != POSITIONAL), f"{flag.name.upper()}{many}")


def _value(flag: Flag) -> str:
    return shown(flag.value) if flag.value != () else "none"


def _metavar(flag: Flag) -> str:
    if flag.kinds:
        return "NAME ..." if flag.name == THEN else "NAME"
    if isinstance(flag.value, bool):
        return ""
    annotation = str(flag.annotation)
    many = " ..." if "tuple[" in annotation else ""
    for kind, name in (("Path", "PATH"), ("Literal", "NAME"), ("float", "X"), ("int", "N")):
        if kind in annotation:
            return name + many
    return "TEXT" + many
