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
    return {
        "all": lambda: _where(params, lambda names: True),
        "classifier": lambda: _where(params, lambda names: names[0] == "classifier"),
        "last_block": lambda: _where(
            params, lambda names: names[0] in ("classifier", last_block(params))
        ),
        "scale": lambda: _where(params, lambda names: names == ["classifier", "scale"]),
    }[trainable]()


def perturbed(trainable: str, scope: str, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them a stage's method perturbs.

    Args:
        trainable: see `Stage`.
        scope: of the method, "all" or "classifier".
        params: of the network.
    """
    if trainable in ("all", "last_block") and scope == "classifier":
        return _where(params, lambda names: names[0] == "classifier")
    return trained(trainable, params)


def kernel_and_bias(params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that selects the classifier's kernel and bias."""
    return _where(params, lambda names: names[0] == "classifier" and names[-1] != "scale")


def last_block(params: dict[str, Any]) -> str:
    """Returns the name of a ResNet's last block, under which its parameters lie.

    Raises:
        UsageError: the network has none.
    """
    matches = (re.fullmatch(r"layer(\d+)_(\d+)", name) for name in params)
    blocks = [(int(found[1]), int(found[2]), found[0]) for found in matches if found]
    if not blocks:
        raise UsageError(
            "network must be a ResNet where its last block is named, got one with parameters under "
            f"{', '.join(params)}"
        )
    return max(blocks)[2]


def _where(params: dict[str, Any], condition: Any) -> dict[str, Any]:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: condition([entry.key for entry in path]), params
    )


def count_parameters(params: object) -> int:
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
