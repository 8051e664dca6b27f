"""What differs between the recipes and data of runs, named as flags name it."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import Count, Number, read_typed, typed

_MISSING = "-"
_OF_SEEDS = ("seed", "images")
# Says where the images are, by whose contents a run with a record of its data is known.
_PLACES = re.compile(r"data\.(source\..*|split_file)|evaluation\.images")
# What a begun run may change: it decides when, not what is computed.
_FREE = frozenset({"evaluation.epochs"})
_SHOWN_CLASSES = 10
_ROUNDING = 1e-4

_DIGESTS = ("labels", "names", "contents")
SAMPLE = 8192
"""Images whose contents are digested: all of most sets. Those of a million would take minutes."""

_logger = logging.getLogger(__name__)


class ImagesRecord(msgspec.Struct, frozen=True):
    """A set of images, with digests of their labels, names and contents."""

    images: Count
    labels: str
    names: str
    contents: str


class DataRecord(msgspec.Struct, frozen=True):
    """What of `recipe.json` a run's data are known by; nothing is what was not recorded."""

    class_names: tuple[str, ...] = ()
    train: ImagesRecord | None = None
    evaluated: ImagesRecord | None = None
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()

    def __post_init__(self):
        # Earlier versions kept them as the file system had them.
        names = tuple(normalize("NFC", name) for name in self.class_names)
        msgspec.structs.force_setattr(self, "class_names", names)


def shared_by_seeds(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what runs of several seeds share of `recipe.json`."""
    return {name: value for name, value in identity.items() if name not in _OF_SEEDS}


def key_but_for_seed(identity: Mapping[str, Any]) -> str:
    """Returns a text that runs have in common if they differ in nothing but their seed.

    Files of data and weights are the same by what they hold, wherever they lie.
    """
    shared = shared_by_seeds(identity)
    if "data" in shared:
        values = {k: v for k, v in flattened(shared).items() if not _PLACES.fullmatch(k)}
        shared = {**values, "data": _but_for_rounding(shared["data"])}
    return json.dumps(shared, sort_keys=True)


def refuse_another_run(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UsageError if the `recipe.json` in a run's directory differs from what it must be.

    Where the data lie, and how often the run is evaluated, may differ.
    """
    if found.get("format") != wanted.get("format"):
        raise UsageError(
            f"{path / 'recipe.json'} must have format {wanted.get('format')}, got "
            f"{found.get('format')!r:.20}: another version of jaxlt wrote it; give another "
            "--workdir"
        )
    differing = {
        name: (there, here)
        for name, (there, here) in differences([found, wanted]).items()
        if name not in _FREE and not ("data" in found and _PLACES.fullmatch(name))
        # What an earlier version had no field for, it did not do.
        if there != _MISSING or here
    }
    if set(differing) <= {"images"} and "data" in wanted:
        begun_with = recorded_data(path, found)
        if others := data_differences(begun_with, wanted["data"]):
            raise UsageError(
                f"data of run {path} must be those that it was begun with, got others: {others}; "
                "put the data back, or give another workdir (--workdir)"
            )
    if differing:
        shown = (f"{name} is {a!r} there and {b!r} here" for name, (a, b) in differing.items())
        raise UsageError(
            f"workdir {path} must be new or hold a run of this recipe, got another: "
            f"{'; '.join(shown)}; give another workdir (--workdir) for a second run, "
            "which --init-from begins with this one's weights"
        )


def recorded_data(path: Path, identity: Mapping[str, Any]) -> DataRecord:
    """Returns what a run's `recipe.json` keeps of its data; says so if it is an earlier version's.

    Of an earlier one's data `model.json` has the names of the classes.
    """
    if "data" in identity:
        return typed(identity["data"], DataRecord, str(path / "recipe.json"))
    _logger.info("run %s is of a version that kept no record of its data to compare", path)
    file = path / "model.json"
    return read_typed(file, DataRecord) if file.exists() else DataRecord()


def data_differences(found: DataRecord, data: Mapping[str, Any]) -> str:
    """Says in what data differ from a run's; nothing if in nothing that the run has a record of."""
    here, said = typed(data, DataRecord, "data"), []
    names, others = found.class_names or here.class_names, here.class_names
    if max(len(names), len(others)) <= _SHOWN_CLASSES:
        if names != others:
            said.append(f"class names are {' '.join(names)} there and {' '.join(others)} here")
    elif len(names) != len(others):
        said.append(f"classes are {len(names)} there and {len(others)} here")
    elif names != others:
        number = next(n for n, name in enumerate(names) if name != others[n])
        said.append(f"class {number} is {names[number]} there and {others[number]} here")
    said += image_differences("training", found.train, here.train)
    said += image_differences("evaluated", found.evaluated, here.evaluated)
    for name in ("mean", "std"):
        one, other = getattr(found, name), getattr(here, name)
        # The same pixels give the same numbers but for rounding.
        alike = len(one) == len(other) and np.allclose(one, other, rtol=0, atol=_ROUNDING)
        if one and not said and not alike:
            said.append(f"{name} of pixels is {_listed(one)} there and {_listed(other)} here")
    return "; ".join(said)


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:.4f}" for number in numbers)


def image_differences(
    what: str, found: ImagesRecord | None, here: ImagesRecord | None
) -> list[str]:
    """Says in what images, `what` of a run, differ; nothing where one has no record."""
    if found is None or here is None or found == here:
        return []
    if found.images != here.images:
        return [f"{what} images are {found.images} there and {here.images} here"]
    names = [name for name in _DIGESTS if getattr(found, name) != getattr(here, name)]
    if names == ["names"] and found.images <= SAMPLE:
        # All contents are compared, and earlier versions digested names in any form of accents.
        return []
    return [f"{', '.join(names)} of {what} images are not the same"]


def differences(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the values in which R `recipe.json` differ, by flag; "-" where one has no such value.

    Where runs have another part, such as another method, its name differs; its fields are left out
    unless they differ between runs that have the same one. Where data lie that are the same does
    not count, nor do data themselves.
    """
    flat = [flattened(tree) for tree in trees]
    first, *rest = (_but_for_rounding(tree.get("data")) for tree in trees)
    if first and all(data == first for data in rest):
        flat = [{k: v for k, v in one.items() if not _PLACES.fullmatch(k)} for one in flat]
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
    """Returns the values of a `recipe.json` by the names of their flags, without its `data`."""
    tree = {name: value for name, value in tree.items() if name != "data"}
    # A file is known by its contents, wherever it lies.
    known = tree.get("contents", {})
    files = {f"recipe.{place}{name}" for name in known for place in ("network.", "")}
    named = ((_flag(path), value) for path, value in _leaves(tree, "") if path not in files)
    return {name: value for name, value in named if name}


def _but_for_rounding(data: Any) -> Any:
    """Leaves out of a run's `data` the mean and deviation, which follow from the rest."""
    if not isinstance(data, Mapping):
        return data
    return {name: value for name, value in data.items() if name not in ("mean", "std")}


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
