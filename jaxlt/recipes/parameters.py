"""Which parameters of a network a stage trains, and which it perturbs."""

import re
from typing import Any

import jax

from jaxlt import UsageError


def trained(trainable: str, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them a stage trains.

    Args:
        trainable: see `Stage`.
        params: of the network.
    """
    selects = {
        "all": lambda names: True,
        "classifier": lambda names: names[0] == "classifier",
        "last_block": lambda names: names[0] in ("classifier", last_block(params)),
        "scale": lambda names: names == ["classifier", "scale"],
    }
    return _where(params, selects[trainable])


def perturbed(trainable: str, scope: str, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them a method of a scope perturbs."""
    narrower = trainable in ("all", "last_block") and scope == "classifier"
    return trained("classifier" if narrower else trainable, params)


def kernel_and_bias(params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that selects the classifier's kernel and bias."""
    return _where(params, lambda names: names[0] == "classifier" and names[-1] != "scale")


def last_block(params: dict[str, Any]) -> str:
    """Returns the name of a ResNet's last block; UsageError if the network has none."""
    matches = (re.fullmatch(r"layer(\d+)_(\d+)", name) for name in params)
    blocks = [(int(found[1]), int(found[2]), found[0]) for found in matches if found]
    if not blocks:
        raise UsageError(
            "network must be a ResNet where its last block is named, got one with parameters under "
            + ", ".join(params)
        )
    return max(blocks)[2]


def _where(params: dict[str, Any], condition: Any) -> dict[str, Any]:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: condition([entry.key for entry in path]), params
    )
