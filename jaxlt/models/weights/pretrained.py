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

# The last part of a parameter's name, where it is another.
_TORCH_LEAF = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_CLASSIFIER = "classifier"


def load_torch_weights(path: str | Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Fills a ResNet's variables from a PyTorch state dict, safetensors or `.pth`.

    The names are torchvision's, which the LDAM-DRW family shares: `conv1`, `layer1.0.bn1`,
    `layer1.0.downsample.0`, ... The classifier is `fc` or `linear`. Values take the leaves' types.

    Args:
        path: The file.
        variables: What `CifarResNet.init` or `ResNet.init` returns, or its shapes.

    Raises:
        UsageError: The file cannot be read, lacks a tensor, holds one that the network has no
            place for, or holds one of another shape.

    Example:
        >>> import numpy as np, safetensors.numpy, jaxlt.models as models
        >>> tensors = {"fc.weight": np.ones((3, 2)), "fc.bias": np.zeros(3)}
        >>> safetensors.numpy.save_file(tensors, "head.safetensors")
        >>> head = {"kernel": np.zeros((2, 3), "f4"), "bias": np.zeros(3, "f4")}
        >>> loaded = models.load_torch_weights("head.safetensors", {"params": {"classifier": head}})
        >>> loaded["params"]["classifier"]["kernel"].shape
        (2, 3)
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
    places = tuple(f"{_torch_name(module, tensors)}." for module in left_out)
    kept = {name: x for name, x in tensors.items() if not name.startswith(places)}
    wanted = {
        collection: {name: leaf for name, leaf in modules.items() if name not in left_out}
        for collection, modules in variables.items()
    }
    return _filled(path, kept, wanted)


def _torch_name(module: str, tensors: Mapping[str, Any]) -> str:
    """PyTorch's name of a Flax module: layer1_0 is layer1.0."""
    if module == _CLASSIFIER:
        # torchvision calls it fc, the LDAM-DRW family linear.
        return "fc" if "fc.weight" in tensors else "linear"
    return module.replace("_", ".")


def _has_classifier(tensors: dict[str, np.ndarray], classifier: Mapping[str, Any]) -> bool:
    """Whether the file's classifier is of the same kind and size as the network's."""
    name = _torch_name(_CLASSIFIER, tensors)
    found = {key: x.shape for key, x in tensors.items() if key.startswith(f"{name}.")}
    wanted = {f"{name}.{_TORCH_LEAF.get(leaf, leaf)}": x.shape for leaf, x in classifier.items()}
    if "bias" in classifier:
        wanted[f"{name}.weight"] = classifier["kernel"].shape[::-1]
    return found == wanted


def _filled(
    path: str | Path, tensors: dict[str, np.ndarray], variables: Mapping[str, Any]
) -> dict[str, Any]:
    # Only PyTorch's Linear stores (classes, features); the cosine head, known by its missing
    # bias, stores (features, classes) as Flax does.
    transposed_head = "bias" in variables["params"].get(_CLASSIFIER, {})
    head_kernel = f"{_torch_name(_CLASSIFIER, tensors)}.weight"

    def place(keys: tuple[str, ...]) -> str:
        _, *modules, last = keys
        names = [_torch_name(name, tensors) for name in modules]
        return ".".join([*names, _TORCH_LEAF.get(last, last)])

    def arrange(name: str, value: np.ndarray) -> np.ndarray:
        if value.ndim == 4:
            return value.transpose(2, 3, 1, 0)
        return value.T if name == head_kernel and transposed_head else value

    # PyTorch counts batches for an averaging rule that neither library's default uses.
    used = {name: x for name, x in tensors.items() if not name.endswith(".num_batches_tracked")}
    return fill_tree(path, used, variables, place, arrange)


def fill_tree(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    tree: Any,
    place: Callable[[tuple[str, ...]], str],
    arrange: Callable[[str, np.ndarray], np.ndarray],
) -> Any:
    """Fills nested dicts of arrays, or of their shapes, with a file's tensors, and casts these.

    `place` maps the keys of a leaf to the name of its tensor, and `arrange` a tensor's name and
    value to the value in Flax's order of axes. A `UsageError` says that a tensor is missing, too
    many or of another shape.
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
