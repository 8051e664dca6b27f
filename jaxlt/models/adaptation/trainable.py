"""Which parameters of an adapted vision transformer train, and which are frozen."""

import re
from typing import Any, TypeAlias

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.errors import UsageError
from jaxlt.models.adaptation.kinds import Adaptation, Kind

# One name for each level of the tree of parameters, the leaf's own last.
LeafPath: TypeAlias = tuple[str, ...]

# The modules that each kind adds, as `jaxlt.models.adaptation.modules` names them.
_ADDED = {
    "adaptformer": "adaptformer",
    "adapter": "adapter",
    "lora": r"lora_\w+",
    "vpt_shallow": "prompts",
    "vpt_deep": "prompts",
    "ssf": r"ssf_\w+",
}


def trainable(adaptation: Adaptation, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them an adaptation trains.

    It goes by names: blocks are `encoder_layers_0` and so on, their layer norms `layer_norm1` and
    `layer_norm2`, and the classifier is `classifier`.

    Args:
        adaptation: what to train.
        params: of an image classifier with the adaptation's modules; arrays or their shapes.

    Raises:
        UsageError: a kind finds nothing to train, or "partial" fewer blocks than it trains.
    """
    paths = list(flatten_dict(params))
    chosen = {path for path in paths if path[0] == "classifier"}
    for kind in adaptation.kinds:
        if kind == "linear_probe":
            continue
        found = _paths_of_kind(kind, adaptation.last_blocks, paths)
        if not found:
            raise UsageError(
                f"network must have parameters for the adaptation {kind}, got none under "
                f"{', '.join(params)}"
            )
        chosen |= found
    return unflatten_dict({path: path in chosen for path in paths})


def _paths_of_kind(kind: Kind, last_blocks: int, paths: list[LeafPath]) -> set[LeafPath]:
    if kind in _ADDED:
        return {p for p in paths if any(re.fullmatch(_ADDED[kind], name) for name in p)}
    if kind == "full":
        return set(paths)
    blocks = {path: number for path in paths if (number := _block_number(path)) is not None}
    if kind == "bias":
        return {path for path in blocks if path[-1] == "bias"}
    if kind == "layer_norm":
        return {path for path in blocks if path[-2] in ("layer_norm1", "layer_norm2")}
    numbers = sorted(set(blocks.values()))
    if last_blocks > len(numbers):
        raise UsageError(
            f"last_blocks must be at most the network's {len(numbers)} blocks, got {last_blocks}"
        )
    return {path for path in blocks if blocks[path] in numbers[-last_blocks:]}


def _block_number(path: LeafPath) -> int | None:
    matches = (re.fullmatch(r"encoder_layers_(\d+)", name) for name in path)
    return next((int(found[1]) for found in matches if found), None)


def split(params: dict[str, Any], mask: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (trained, frozen): the leaves where a tree of bools is true, and the others.

    Both are trees of the same names without what the other has. So gradients, optimizers,
    perturbations and checkpoints need not know the frozen ones. `join` puts them together.
    """
    chosen = flatten_dict(mask)
    leaves = flatten_dict(params)
    trained = {path: leaf for path, leaf in leaves.items() if chosen[path]}
    frozen = {path: leaf for path, leaf in leaves.items() if not chosen[path]}
    return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """Undoes `split`."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))
