"""Weights of PyTorch networks, read from safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxlt.errors import UsageError

# The last part of a parameter's name, by Flax collection and name.
_TORCH_LEAF = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# PyTorch counts batches for an averaging rule that neither library's default uses.
_IGNORED_SUFFIX = ".num_batches_tracked"


def load_torch_weights(path: str | Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Fills a CIFAR ResNet's variables from a PyTorch state dict saved as safetensors.

    The names are those of the LDAM-DRW family: `conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`;
    shortcuts that project are torchvision's `downsample.0` and `downsample.1`.

    Args:
        path: The safetensors file.
        variables: What `CifarResNet.init` returns, or its shapes from `jax.eval_shape`.

    Returns:
        A tree like `variables` with the file's values, each cast to its leaf's type.

    Raises:
        UsageError: The file cannot be read, lacks a tensor, holds one that the network has no
            place for, or holds one of another shape.
    """
    tensors = _read(path)
    # Only PyTorch's Linear stores (classes, features); the cosine head, known by its missing
    # bias, stores (features, classes) as Flax does.
    transposed_head = "bias" in variables["params"]["classifier"]

    def fill(key_path: Any, leaf: Any) -> jax.Array:
        keys = tuple(key.key for key in key_path)
        name = _torch_name(keys)
        if name not in tensors:
            raise UsageError(f"{path}: has no tensor {name}, which the network needs")
        value = tensors.pop(name)
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif name == "linear.weight" and transposed_head:
            value = value.T
        if value.shape != leaf.shape:
            raise UsageError(
                f"{path}: tensor {name} was of shape {value.shape} in Flax's order of axes, "
                f"must be {tuple(leaf.shape)}"
            )
        return jnp.asarray(value, leaf.dtype)

    filled = jax.tree_util.tree_map_with_path(fill, variables)
    unused = sorted(name for name in tensors if not name.endswith(_IGNORED_SUFFIX))
    if unused:
        raise UsageError(
            f"{path}: holds {len(unused)} tensors that the network has no place for, "
            f"the first of them {unused[0]}; must hold this network's tensors alone"
        )
    return filled


def _read(path: str | Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path}: must be a readable safetensors file: {reason}") from error


def _torch_name(keys: tuple[str, ...]) -> str:
    """PyTorch's name of a Flax leaf: (params, layer1_0, bn1, scale) is layer1.0.bn1.weight."""
    collection, *modules, leaf = keys
    if modules == ["classifier"]:
        modules = ["linear"]
    dotted = [module.replace("_", ".") for module in modules]
    return ".".join([*dotted, _TORCH_LEAF[collection, leaf]])
