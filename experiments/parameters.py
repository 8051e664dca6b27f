"""Which parameters of a network a stage trains, and which it perturbs."""

from typing import Any

import jax

from experiments.stage import Stage


def trained(stage: Stage, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them the stage trains."""
    return {
        "all": lambda: _where(params, lambda names: True),
        "classifier": lambda: _where(params, lambda names: names[0] == "classifier"),
        "scale": lambda: _where(params, lambda names: names == ["classifier", "scale"]),
    }[stage.trainable]()


def perturbed(stage: Stage, params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that says which of them its method perturbs."""
    if stage.trainable == "all" and stage.scope == "classifier":
        return _where(params, lambda names: names[0] == "classifier")
    return trained(stage, params)


def kernel_and_bias(params: dict[str, Any]) -> dict[str, Any]:
    """Returns a tree like the parameters that selects the classifier's kernel and bias."""
    return _where(params, lambda names: names[0] == "classifier" and names[-1] != "scale")


def _where(params: dict[str, Any], condition: Any) -> dict[str, Any]:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: condition([entry.key for entry in path]), params
    )


def count_parameters(params: object) -> int:
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
