"""What differs between the recipes of runs, named as flags name it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError

_MISSING = "-"
_OF_SEEDS = ("seed", "images")


def shared_by_seeds(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what runs of several seeds share of `recipe.json`."""
    return {name: value for name, value in identity.items() if name not in _OF_SEEDS}


def key_but_for_seed(identity: Mapping[str, Any]) -> str:
    """Returns a text that runs have in common if they differ in nothing but their seed."""
    return json.dumps(shared_by_seeds(identity), sort_keys=True)


def refuse_another_run(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UsageError if the `recipe.json` in a run's directory differs from what it must be."""
    if found.get("format") != wanted.get("format"):
        raise UsageError(
            f"{path / 'recipe.json'} must have format {wanted.get('format')}, got "
            f"{found.get('format')!r:.20}: another version of jaxlt wrote it; give another "
            "--workdir"
        )
    if differing := differences([found, wanted]):
        shown = (f"{name} is {a!r} there and {b!r} here" for name, (a, b) in differing.items())
        raise UsageError(
            f"workdir {path} must be new or hold a run of this recipe, got another: "
            f"{'; '.join(shown)}; give another workdir (--workdir) for a second run"
        )


def differences(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the values in which R `recipe.json` differ, by flag; "-" where one has no such value.

    Where runs have another part, such as another method, its name differs; its fields are left out
    unless they differ between runs that have the same one.
    """
    flat = [flattened(tree) for tree in trees]
    names = dict.fromkeys(name for values in flat for name in values)
    found = {name: [values.get(name, _MISSING) for values in flat] for name in names}
    differing = {
        name: values
        for name, values in found.items()
        if any(value != values[0] for value in values)
    }
    parts = {name: values for name, values in differing.items() if _MISSING not in values}

    def tells(name: str, values: list[Any]) -> bool:
        within = [of for part, of in parts.items() if name.startswith(f"{part}.")]
        return all(_differ_within(of, values) for of in within)

    return {name: values for name, values in differing.items() if tells(name, values)}


def flattened(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a `recipe.json` by the names of their flags."""
    # A file is known by its contents, wherever it lies.
    known = tree.get("contents", {})
    files = {f"recipe.{place}{name}" for name in known for place in ("network.", "")}
    named = ((_flag(path), value) for path, value in _leaves(tree, "") if path not in files)
    return {name: value for name, value in named if name}


def _differ_within(parts: Sequence[Any], values: Sequence[Any]) -> bool:
    """Whether values differ between runs of one part."""
    pairs = list(zip(parts, values, strict=True))
    return any(a == b and one != other for a, one in pairs for b, other in pairs)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
        value = {str(number): item for number, item in enumerate(value)}
    if not isinstance(value, Mapping):
        yield path, value
        return
    if "name" in value:
        yield path, value["name"]
    for name, item in value.items():
        if name != "name":
            yield from _leaves(item, f"{path}.{name}" if path else name)


def _flag(path: str) -> str:
    """Returns `method.rho` for `recipe.stages.0.method.rho`, and so on."""
    path = re.sub(r"^recipe\.stages\.0(\.|$)", "recipe.", path)
    path = re.sub(r"^recipe\.stages\.(\d+)", lambda found: f"recipe.then.{int(found[1]) - 1}", path)
    return path.removeprefix("recipe.")
