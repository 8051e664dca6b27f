"""What a run begins with where it begins with the weights of another run."""

import functools
import hashlib
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.data import Source
from jaxlt.errors import UsageError, first_few
from jaxlt.files.directory import expanded
from jaxlt.models.clip.snapshot import interpolate_positions
from jaxlt.models.weights.kept_classes import rows_by_name
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.network import Encoder, Network
from jaxlt.recipes.network.network import Backbone
from jaxlt.recipes.part import own_fields, part_name
from jaxlt.runs.checkpoint import digest
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.reader import RunReader, directory_and_step

_logger = logging.getLogger(__name__)

_CLASSIFIER = ("params", "classifier")
_POSITIONS = "position_embedding"
_SHOWN = 3


def of_run(
    network: Network, place: str, source: Source, pipelines: InputPipelines
) -> dict[str, Any]:
    """Returns variables that take the place of those drawn: those of a run, which is only read.

    Classes keep their weights in the classifier by name. What the run has no weights for, new
    classes and new modules of an adaptation, is as without the run.

    Args:
        network: that is to be trained.
        place: directory of a finished run, or one of its `checkpoints/STEP`.
        source: what it is to be trained on.
        pipelines: its pipelines.

    Raises:
        UsageError: there is no such run, or its network is another.
    """
    found, variables = _read(network, place)
    old, new = found.class_names, source.class_names
    for whose, names in ((f"run {place}", old), (source.name, new)):
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(
                f"classes of {whose} must have different names where a run begins with another's "
                f"weights, got {min(twice)!r} twice"
            )
    given = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables).items()}
    given = {path: leaf for path, leaf in given.items() if path[:2] != _CLASSIFIER}
    model = network.build(source.num_classes, source.image_shape)
    image = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    trained = {**shapes, "params": model.split(shapes["params"])[0]}
    wanted = flatten_dict(trained)
    for path, leaf in given.items():
        given[path] = _fitted(path, leaf, wanted.get(path), network, found, source, place)
    added = [name for name in new if name not in old]
    kept, dropped = len(new) - len(added), [name for name in old if name not in new]
    head = rows_by_name(_head(variables["params"]["classifier"], found), old, new)
    _logger.info(
        "begins with the weights of run %s: %d classes kept%s%s",
        place,
        kept,
        _named(added, "new"),
        _named(dropped, "dropped"),
    )
    if not kept:
        _logger.warning(
            "no class of run %s has the name of one of %s: the classifier is new",
            place,
            source.name,
        )
    base = network
    if isinstance(network, Encoder) and not added:
        # Spares a pass over the images, or the texts.
        base = network.replace(classifier_init="random", class_names=None)
    whole: dict[Any, Any] = flatten_dict(base.initial_weights(source, pipelines)) | given
    for name, leaf in head.items():
        path = (*_CLASSIFIER, name)
        # What the recipe says of new classes holds of them.
        whole[path] = leaf.over(whole[path]) if path in whole else leaf
    return unflatten_dict(whole)


def contents(network: Network, place: str) -> str:
    """Returns what is known a run's weights by, wherever it lies; UsageError as of `of_run`."""
    path, step = directory_and_step(expanded(place))
    # A checkpoint never changes once it has its name.
    checkpoints = path / "checkpoints"
    when = checkpoints.stat().st_mtime_ns if checkpoints.is_dir() else 0
    return _digest(network, place, str(path.absolute()), step, when)


@functools.lru_cache(maxsize=16)
def _digest(network: Network, place: str, *key: object) -> str:
    found, variables = _read(network, place)
    known = (found.class_names, found.classifier, found.pretrained, digest(variables))
    return f"sha256:{hashlib.sha256(json.dumps(known).encode()).hexdigest()}"


def _read(network: Network, place: str) -> tuple[ModelDescription, dict[str, Any]]:
    """Returns what the run's network is, and its variables; UsageError unless it is this one."""
    path, step = directory_and_step(expanded(place))
    run = RunReader(path)
    if not (path / "model.json").is_file():
        raise UsageError(
            f"init_from must be a run's directory, or one of its checkpoints/STEP, got {place}, "
            "which has no model.json"
        )
    if step is None and not run.result_file.is_file():
        steps = run.saved_steps()
        hint = f"; give {path}/checkpoints/{steps[-1]} for what it is so far" if steps else ""
        raise UsageError(f"init_from must be a finished run, got {place}, which is not{hint}")
    found = run.description
    _check_network(network, found, place)
    # Its files may have moved, and are the same.
    run.description = msgspec.structs.replace(found, model=network.label)
    return found, run.variables(step)


def _check_network(network: Network, found: ModelDescription, place: str) -> None:
    def refuse(name: str, need: object, got: object) -> None:
        if need != got:
            raise UsageError(
                f"{name} must be {shown(need)}, that of run {place}, got {shown(got)}; give --"
                f"{name.replace('_', '-')} {shown(need)}, or --init-from none"
            )

    kind, _, size = network.label.partition(":")
    found_kind, _, found_size = found.model.partition(":")
    if bool(size) != bool(found_size) or (size and kind != found_kind):
        refuse("network", found.model, network.label)
    if not size:
        refuse("network.architecture", found.model, network.label)
    elif (pretrained := network.pretrained()) != found.pretrained:
        field = f"network.{own_fields(type(network))[0]}"
        raise UsageError(
            f"{field} must be the files that run {place} began with, of {found.pretrained}, got "
            f"{network.label}, of {pretrained}"
        )
    if isinstance(network, Backbone) and network.weights is not None:
        refuse("network.weights", None, network.weights)
    head = part_name(network.classifier)
    # LWS's factors become part of the weights.
    theirs = "linear" if found.classifier == "scaled_linear" else found.classifier
    if theirs == "nearest_class_mean":
        raise UsageError(
            f"init_from must be a run whose classifier can be trained, got {place}, which ends in "
            "nearest class means"
        )
    refuse("network.classifier", theirs, head)


def _fitted(
    path: tuple[str, ...],
    leaf: np.ndarray,
    wanted: Any,
    network: Network,
    found: ModelDescription,
    source: Source,
    place: str,
) -> np.ndarray:
    """Returns a leaf of the run's as the network has it, or raises UsageError."""
    name = "/".join(path[1:])
    if wanted is None:
        theirs = "full" if found.adaptation is None else " ".join(found.adaptation.kinds)
        ours = " ".join(network.adaptation.kinds) if isinstance(network, Encoder) else "none"
        raise UsageError(
            f"network.adaptation.kinds must be {theirs}, those of run {place}, got {ours}: it has "
            f"trained {name}; give --network.adaptation.kinds {theirs}"
        )
    if leaf.shape == wanted.shape:
        return leaf
    if found.image_shape[-1] != source.image_shape[-1]:
        raise UsageError(
            f"images must have {found.image_shape[-1]} channels, as those of run {place}, got "
            f"{source.image_shape[-1]} in {source.name}"
        )
    if path[-1] == _POSITIONS and isinstance(network, Encoder):
        return interpolate_positions(leaf, round((wanted.shape[0] - 1) ** 0.5))
    if found.image_shape != source.image_shape:
        raise UsageError(
            f"data.image_size must be {found.image_shape[0]}, that of run {place}, got "
            f"{source.image_shape[0]}: {name} has a number for each place of {network.label}'s "
            f"images; give --data.image-size {found.image_shape[0]}"
        )
    if isinstance(network, Encoder) and (rank := _rank(path, leaf)):
        raise UsageError(
            f"network.adaptation.rank must be {rank}, that of run {place}, got another for "
            f"{source.num_classes} classes; give --network.adaptation.rank {rank}"
        )
    raise UsageError(
        f"network must be that of run {place}, whose {name} is of shape {leaf.shape}, got "
        f"{wanted.shape}"
    )


def _rank(path: tuple[str, ...], leaf: np.ndarray) -> int | None:
    """Returns the width of the bottleneck that a leaf belongs to, None for another leaf."""
    module, name = path[-2:]
    last = {"down": -1, "up": 0}.get(module)
    if module.startswith("lora_"):
        last = {"A": -1, "B": 0}.get(name)
    return None if last is None else leaf.shape[last]


def _head(classifier: dict[str, Any], found: ModelDescription) -> dict[str, Any]:
    """Returns the leaves (..., classes) of a head; those of LWS as of the linear one it equals."""
    if found.classifier != "scaled_linear":
        return classifier
    scale = classifier["scale"]
    return {name: leaf * scale for name, leaf in classifier.items() if name != "scale"}


def _named(names: list[str], what: str) -> str:
    if not names:
        return ""
    return f", {len(names)} {what} ({first_few(names, _SHOWN)})"
