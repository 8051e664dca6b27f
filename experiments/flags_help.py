"""The text of `--help`: the flags of a program and of the parts that are chosen, by part."""

import re
import textwrap
from typing import Any, get_origin

from experiments.flags import Flag, choices, flags_of
from jaxlt.recipes.part import shown

_WIDTH = 120
_FLAGS_WIDTH = 36
_END = "In brackets stands what holds now. --version prints the version."


def render(arguments: Any, program: str, description: str) -> str:
    """Renders the help of a program.

    Args:
        arguments: dataclass of flags, with the chosen parts in place.
        program: module that `python -m` runs.
        description: what it does.
    """
    lines = [f"usage: python3 -m {program} [flags]", *textwrap.wrap(description, _WIDTH)]
    groups: dict[str, list[Flag]] = {}
    for flag in flags_of(arguments):
        groups.setdefault(flag.group, []).append(flag)
    later: list[Flag] = []
    for group, flags in groups.items():
        if group.startswith("then."):
            later += flags
            continue
        lines.append(f"{group}:" if group else "")
        lines += [line for flag in flags for line in _lines(flag)]
    if later:
        lines.append("later stages, whose flags mean what those of the first mean:")
        lines += textwrap.wrap(
            " ".join(f"--{flag.name} [{_value(flag)}]" for flag in later),
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
    return "\n".join([*lines, _END])


def _lines(flag: Flag) -> list[str]:
    """Returns the line of a flag, or several."""
    names, doc = [str(one) for one in choices(flag)], _first_sentence(flag.doc)
    # Not twice, where the sentence has them.
    said = set(re.findall(r"\w+", doc))
    kinds = "" if said.issuperset(names) else ", ".join(names)
    left = f"  --{flag.name}" + (f" {_metavar(flag)}" if _metavar(flag) else "")
    text = " ".join(filter(None, (kinds and f"{kinds}.", doc)))
    wrapped = textwrap.wrap(f"{text} [{_value(flag)}]", _WIDTH - _FLAGS_WIDTH)
    indent = " " * _FLAGS_WIDTH
    if len(left) >= _FLAGS_WIDTH:
        return [left, *(indent + line for line in wrapped)]
    return [left.ljust(_FLAGS_WIDTH) + wrapped[0], *(indent + line for line in wrapped[1:])]


def _value(flag: Flag) -> str:
    return shown(flag.value) if flag.value != () else "none"


def _metavar(flag: Flag) -> str:
    if flag.kinds:
        return "NAME"
    if isinstance(flag.value, bool):
        return ""
    annotation = str(flag.annotation)
    many = " ..." if get_origin(flag.annotation) is tuple or "tuple[" in annotation else ""
    for kind, name in (("Path", "PATH"), ("Literal", "NAME"), ("float", "X"), ("int", "N")):
        if kind in annotation:
            return name + many
    return "TEXT" + many


def _first_sentence(doc: str) -> str:
    end = doc.find(". ")
    return doc if end < 0 else doc[: end + 1]
