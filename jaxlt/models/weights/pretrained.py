"""Weights of PyTorch networks for networks of this package."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.models.weights.torch_files import read_tensors

_logger = logging.getLogger(__name__)

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
_CLASSIFIER = "classifier"
# What torchvision calls it, and what the LDAM-DRW family does.
_TORCH_CLASSIFIERS = ("fc", "linear")

_Tensors = dict[str, np.ndarray]


def load_torch_weights(path: str | Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Fills a ResNet's variables from a PyTorch state dict, safetensors or `.pth`.

    The names are torchvision's, which the LDAM-DRW family shares: `conv1`, `bn1`,
    `layer1.0.conv1`, `layer1.0.downsample.0`, ... The classifier is `fc` or `linear`. Each value is
    cast to its leaf's type.

    Args:
        path: The file, see `jaxlt.models.weights.torch_files.read_tensors`.
        variables: What `CifarResNet.init` or `ResNet.init` returns, or its shapes from
            `jax.eval_shape`.

    Raises:
        UsageError: The file cannot be read, lacks a tensor, holds one that the network has no
            place for, or holds one of another shape.
    """
    return _filled(path, read_tensors(path), variables)


def load_initial_weights(
    path: str | Path, variables: Mapping[str, Any], *, drawn: Collection[str] = ()
) -> dict[str, Any]:
    """Reads the weights with which a ResNet begins its training, as `load_torch_weights` does.

    The classifier is among them where the file has one of the network's kind and number of
    classes. Everything else must match. The result is the part of `variables` that the file gives.

    Args:
        path: The file.
        variables: Of the network, or their shapes.
        drawn: Modules, such as "layer4_2", that are to stay as they were drawn.

    Raises:
        UsageError: As for `load_torch_weights`.
    """
    tensors = read_tensors(path)
    left_out = set(drawn)
    if not _has_classifier(tensors, variables["params"][_CLASSIFIER]):
        left_out.add(_CLASSIFIER)
        _logger.info("%s: has no classifier for this network, which keeps a new one", path)
    classifier = _torch_classifier(tensors)
    names = {classifier if module == _CLASSIFIER else _dotted(module) for module in left_out}
    kept = {name: x for name, x in tensors.items() if not _lies_in(names, name)}
    wanted = {
        collection: {name: leaf for name, leaf in modules.items() if name not in left_out}
        for collection, modules in variables.items()
    }
    return _filled(path, kept, wanted)


def _has_classifier(tensors: _Tensors, classifier: Mapping[str, Any]) -> bool:
    """Whether the file's classifier is of the same kind and size as the network's."""
    name = _torch_classifier(tensors)
    found = {key: x.shape for key, x in tensors.items() if _lies_in({name}, key)}
    kernel = classifier["kernel"].shape
    wanted = {
        f"{name}.{_TORCH_LEAF.get(('params', leaf), leaf)}": value.shape
        for leaf, value in classifier.items()
    }
    if "bias" in classifier:
        wanted[f"{name}.weight"] = kernel[::-1]
    return found == wanted


def _lies_in(modules: Collection[str], name: str) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _filled(path: str | Path, tensors: _Tensors, variables: Mapping[str, Any]) -> dict[str, Any]:
    # Only PyTorch's Linear stores (classes, features); the cosine head, known by its missing
    # bias, stores (features, classes) as Flax does.
    transposed_head = "bias" in variables["params"].get(_CLASSIFIER, {})
    classifier = _torch_classifier(tensors)

    def place(keys: tuple[str, ...]) -> str:
        collection, *modules, last = keys
        dotted = [classifier if name == _CLASSIFIER else _dotted(name) for name in modules]
        return ".".join([*dotted, _TORCH_LEAF[collection, last]])

    def arrange(name: str, value: np.ndarray) -> np.ndarray:
        if value.ndim == 4:
            return value.transpose(2, 3, 1, 0)
        return value.T if name == f"{classifier}.weight" and transposed_head else value

    counted = {name: x for name, x in tensors.items() if not name.endswith(_IGNORED_SUFFIX)}
    return fill_tree(path, counted, variables, place, arrange)


def fill_tree(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    tree: Any,
    place: Callable[[tuple[str, ...]], str],
    arrange: Callable[[str, np.ndarray], np.ndarray],
) -> Any:
    """Fills a tree of arrays with the tensors of a file, each of which must be used.

    Args:
        path: The file, for messages.
        tensors: By name.
        tree: Nested dicts of arrays or their shapes. Each value is cast to its leaf's type.
        place: Maps the keys of a leaf to the name of its tensor.
        arrange: Maps a tensor's name and value to the value in Flax's order of axes.

    Raises:
        UsageError: A tensor is missing, too many or of another shape.
    """
    left = dict(tensors)

    def fill(key_path: Any, leaf: Any) -> jax.Array:
        name = place(tuple(key.key for key in key_path))
        if name not in left:
            raise UsageError(f"{path} must hold the network's tensor {name}, got none")
        value = arrange(name, left.pop(name))
        if value.shape != leaf.shape:
            raise UsageError(
                f"tensor {name} in {path} must be of shape {tuple(leaf.shape)} in Flax's order of "
                f"axes, got {value.shape}"
            )
        return jnp.asarray(value, leaf.dtype)

    filled = jax.tree_util.tree_map_with_path(fill, tree)
    if left:
        raise UsageError(
            f"{path} must hold this network's tensors alone, got {len(left)} others, the first of "
            f"them {min(left)}"
        )
    return filled


def _dotted(module: str) -> str:
    """PyTorch's name of a Flax module: layer1_0 is layer1.0."""
    return module.replace("_", ".")


def _torch_classifier(tensors: _Tensors) -> str:
    names = [name for name in _TORCH_CLASSIFIERS if f"{name}.weight" in tensors]
    return names[0] if names else _TORCH_CLASSIFIERS[-1]
