"""Which parameters of an adapted vision transformer train, and which are frozen."""

import re
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.errors import UsageError
from jaxlt.models.adaptation.kinds import EncoderAdaptation

_BLOCK = r"/encoder_layers_(\d+)/"
# What each kind trains, in paths such as /vision_model/encoder_layers_0/layer_norm1/scale; what
# is added has the names of `jaxlt.models.adaptation.modules`.
_TRAINED = {
    "adaptformer": "/adaptformer/",
    "adapter": "/adapter/",
    "lora": r"/lora_\w+/",
    "vpt_shallow": "/prompts/",
    "vpt_deep": "/prompts/",
    "ssf": r"/ssf_\w+/",
    "bias": rf"{_BLOCK}(.+/)?bias$",
    "layer_norm": rf"{_BLOCK}(.+/)?layer_norm[12]/\w+$",
    "full": "",
}


def trainable(adaptation: EncoderAdaptation, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them an adaptation trains.

    It goes by names: blocks are `encoder_layers_0` and so on, their layer norms `layer_norm1` and
    `layer_norm2`, and the classifier is `classifier`.

    Args:
        adaptation: what to train.
        params: of an image classifier with the adaptation's modules; arrays or their shapes.

    Raises:
        UsageError: a kind finds nothing to train, or "partial" fewer blocks than it trains.
    """
    paths = {path: "/" + "/".join(path) for path in flatten_dict(params)}
    chosen = {path for path in paths if path[0] == "classifier"}
    for kind in adaptation.kinds:
        if kind == "linear_probe":
            continue
        if kind == "partial":
            found = _last_blocks(paths, adaptation.last_blocks)
        else:
            found = {path for path, name in paths.items() if re.search(_TRAINED[kind], name)}
        if not found:
            raise UsageError(
                f"network must have parameters for the adaptation {kind}, got none under "
                f"{', '.join(params)}"
            )
        chosen |= found
    return unflatten_dict({path: path in chosen for path in paths})


def _last_blocks(paths: dict[tuple[str, ...], str], count: int) -> set[tuple[str, ...]]:
    numbers = {path: int(m[1]) for path, name in paths.items() if (m := re.search(_BLOCK, name))}
    blocks = sorted(set(numbers.values()))
    if count > len(blocks):
        raise UsageError(
            f"last_blocks must be at most the network's {len(blocks)} blocks, got {count}"
        )
    return {path for path, number in numbers.items() if number in blocks[-count:]}


def split(params: dict[str, Any], mask: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (trained, frozen): the leaves where a tree of bools is true, and the others.

    Both are trees of the same names without what the other has. So gradients, optimizers,
    perturbations and checkpoints need not know the frozen ones. `join` puts them together.
    """
    chosen, leaves = flatten_dict(mask), flatten_dict(params)
    trained = {path: leaf for path, leaf in leaves.items() if chosen[path]}
    frozen = {path: leaf for path, leaf in leaves.items() if not chosen[path]}
    return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """Undoes `split`."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))
