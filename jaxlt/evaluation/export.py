"""A trained network in files for other programs: a StableHLO program, named tensors, ONNX.

Each function writes a file whole or not at all, and only after what will be in it was found to give
the network's own predictions.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from PIL import Image

from jaxlt.data.sources.resampling import center_crop, stretch
from jaxlt.errors import UsageError, first_line
from jaxlt.evaluation.prediction import Predictor
from jaxlt.files.directory import write_json
from jaxlt.files.whole_file import check_can_be_written, whole_file

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# Of a probability; compilers order sums differently.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
# Pillow rounds weights to 22 bits, and pixels after each axis.
_GRAY_LEVELS = 2
_SLACK = 2.0**-10


class ExportCheck(NamedTuple):
    """How far a file is from the network's own predictions.

    Attributes:
        probability: largest difference of a probability, given the same pixels.
        pixel: largest difference in gray levels of an image resized by the file's program and by
            Pillow, which `Predictor` reads files with; 0 where a file has no resizing.
        images: how many were compared.
    """

    probability: float
    pixel: float
    images: int


def export_stablehlo(predictor: Predictor, path: Path, images: Sequence[np.ndarray]) -> ExportCheck:
    """Writes a program for JAX that takes images of any size and number, by `jax.export`.

    It maps uint8 images (B, H, W, C) to `{"logits": (B, classes), "probabilities": (B, classes)}`,
    float32. B, H and W are free; C is the run's. Images are resized as the run's image files are,
    and normalized. The file needs jax alone: `jax.export.deserialize(content).call(images)`. What
    the classes are called stands beside it, in a JSON file of its name and `.json`.

    Args:
        predictor: the network.
        path: of the file.
        images: to compare predictions on, each uint8 (H, W, C) of any size; at least one.

    Raises:
        UsageError: the file cannot be written, is there and no export, or its predictions are
            others. Then there is none.
    """
    _check_place(path)
    _check_place(_beside(path))
    channels = predictor.image_shape[-1]
    sizes = export.symbolic_shape(f"batch, height, width, {channels}")
    function = jax.jit(lambda images: _outputs(predictor, _fitted(predictor, images)))
    exported = export.export(function, platforms=PLATFORMS)(jax.ShapeDtypeStruct(sizes, jnp.uint8))
    content = bytes(exported.serialize())
    call = export.deserialize(bytearray(content)).call
    check = _checked(predictor, images, lambda one: call(one[np.newaxis])["probabilities"][0])
    together = np.stack([images[0]] * 3)
    outputs = call(together)["probabilities"]
    _compare(predictor, outputs, _own(predictor, _fitted(predictor, together)))
    with whole_file(path, "output") as file:
        file.write(content)
    write_json(_beside(path), _described(predictor))
    return check


def export_safetensors(
    predictor: Predictor, path: Path, images: Sequence[np.ndarray]
) -> ExportCheck:
    """Writes all parameters and statistics, each under its name in the network.

    Names are those of `predictor.variables`, joined by dots: `params.classifier.kernel`. Class
    names, normalization and all else of the run's `model.json` are JSON in the metadata `jaxlt`.
    Args and Raises are those of `export_stablehlo`.
    """
    from safetensors.numpy import load, save

    _check_place(path)
    tensors = {
        # Of an array that is not contiguous safetensors would write other numbers.
        ".".join(name): np.ascontiguousarray(leaf)
        for name, leaf in flatten_dict(jax.device_get(predictor.variables)).items()
    }
    # That of other formats says which framework has written it.
    content = save(tensors, {"format": "flax", "jaxlt": json.dumps(_described(predictor))})
    read = unflatten_dict({tuple(name.split(".")): leaf for name, leaf in load(content).items()})
    variables = {"batch_stats": {}, **read}
    logits = jax.jit(predictor.logits_fn)

    def probabilities(image: np.ndarray) -> Any:
        return jax.nn.softmax(logits(variables, _resized(predictor, image)[np.newaxis])[0])

    check = _checked(predictor, images, probabilities, resizes=False)
    with whole_file(path, "output") as file:
        file.write(content)
    return check


def export_onnx(predictor: Predictor, path: Path, images: Sequence[np.ndarray]) -> ExportCheck:
    """Writes a program for ONNX's runtimes, which takes images of the run's size.

    Its input `images`, uint8 (B, H, W, C), is normalized inside; B is free. Its outputs are
    `logits` and `probabilities`, float32 (B, classes). The contents of the run's `model.json` are
    JSON in the metadata `jaxlt`. Args and Raises are those of `export_stablehlo`; a UsageError also
    says that jax2onnx is not installed, or does not know an operation of the network.
    """
    _check_place(path)
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"jax2onnx and onnxruntime must be installed for ONNX, got {error}: "
            "python3 -m pip install 'jaxlt[export]'"
        ) from error

    # Runtimes for CPUs have no convolution of bfloat16.
    network = predictor.in_float32()

    def outputs(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        # ONNX multiplies no integers by fractions.
        found = _outputs(network, images.astype(jnp.float32))
        return found["logits"], found["probabilities"]

    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *predictor.image_shape), jnp.uint8)
    names = ["logits", "probabilities"]
    together = np.stack([_resized(predictor, image) for image in images])
    try:
        model = to_onnx(outputs, [shape], input_names=["images"], output_names=names)
        entry = model.metadata_props.add()
        entry.key, entry.value = "jaxlt", json.dumps(_described(predictor))
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        one_by_one = [session.run(names, {"images": image[np.newaxis]})[1] for image in together]
        at_once = session.run(names, {"images": together})[1]
    # The converter and the runtime raise whatever an operation that they do not know makes of it.
    except Exception as error:
        raise UsageError(
            f"network {predictor.description.model} must be one that jax2onnx converts: "
            f"{first_line(error)}; --format stablehlo takes it"
        ) from error
    own = _own(predictor, together)
    difference = max(_compare(predictor, found, own) for found in (np.vstack(one_by_one), at_once))
    with whole_file(path, "output") as file:
        file.write(content)
    return ExportCheck(difference, 0.0, len(images))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _check_place(path: Path) -> None:
    """Raises UsageError unless a file can be written, and one that is there is an export's."""
    check_can_be_written(path, "output")
    # What the names beside a program, and the metadata of other formats, always have.
    marks = (b"class_names", b"jaxlt")
    if path.exists() and path.suffix != ".stablehlo":
        content = path.read_bytes()
        if content and not any(mark in content for mark in marks) and not _beside(path).exists():
            raise UsageError(
                f"output must be a new file or one that an export wrote, got {path}, which is "
                "neither; give another, or remove it"
            )


def _described(predictor: Predictor) -> dict[str, Any]:
    return msgspec.to_builtins(predictor.description)


def _outputs(predictor: Predictor, images: jax.Array) -> dict[str, jax.Array]:
    logits = predictor.logits_fn(predictor.variables, images).astype(jnp.float32)
    return {"logits": logits, "probabilities": jax.nn.softmax(logits)}


def _own(predictor: Predictor, images: Any) -> np.ndarray:
    """Returns the network's own probabilities, float32 (B, classes)."""
    return np.asarray(jax.nn.softmax(jnp.asarray(predictor.logits(np.asarray(images)))))


def _checked(
    predictor: Predictor,
    images: Sequence[np.ndarray],
    probabilities: Callable[[np.ndarray], Any],
    *,
    resizes: bool = True,
) -> ExportCheck:
    """Compares a file's predictions, which take one image, with the network's own."""
    probability = pixel = 0.0
    for image in images:
        by_pillow = _resized(predictor, image)
        fitted = by_pillow
        if resizes:
            fitted = np.asarray(_fitted(predictor, jnp.asarray(image)[jnp.newaxis])[0])
            pixel = max(pixel, float(np.abs(fitted.astype(int) - by_pillow.astype(int)).max()))
        own = _own(predictor, fitted[np.newaxis])[0]
        probability = max(probability, _compare(predictor, probabilities(image), own))
    if pixel > _GRAY_LEVELS:
        raise UsageError(
            f"exported program must resize images as Pillow does, to {_GRAY_LEVELS} gray levels, "
            f"got a difference of {pixel:g}; nothing is written"
        )
    return ExportCheck(probability, pixel, len(images))


def _compare(predictor: Predictor, found: Any, own: np.ndarray) -> float:
    difference = float(np.abs(np.asarray(found) - own).max())
    most = _TOLERANCES[predictor.description.precision]
    if not difference <= most:
        raise UsageError(
            f"exported predictions must be the run's own to {most:g}, got a difference of "
            f"{difference:g} in a probability; nothing is written"
        )
    return difference


def _resized(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """Brings an image (H, W, C) to the run's shape as its image files are, by Pillow."""
    height, width, channels = shape = predictor.image_shape
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    if predictor.resize == "center_crop":
        picture = center_crop(picture, height)
    return np.asarray(stretch(picture, height, width)).reshape(shape)


def _fitted(predictor: Predictor, images: Any) -> jax.Array:
    """Brings images (B, H, W, C) to the run's shape, uint8; their sizes may be symbols."""
    wanted, sides = predictor.image_shape[:2], images.shape[1:3]
    wholes, starts = tuple(jnp.float32(side) for side in wanted), (jnp.float32(0),) * 2
    if predictor.resize == "center_crop":
        size, lengths = wanted[0], [jnp.asarray(side) for side in sides]
        # The shorter side becomes 8/7 of the size; both, and the corner, are rounded as Pillow's.
        scaled = [size * 8 // 7 * one // jnp.minimum(*lengths) for one in lengths]
        starts = tuple(jnp.round((one - size) / 2) for one in scaled)
        wholes = tuple(one.astype(jnp.float32) for one in scaled)
    # Pillow rounds after the horizontal pass, which is the first.
    for axis in (1, 0):
        images = _along(images, 1 + axis, wanted[axis], wholes[axis], starts[axis])
    return images


def _along(
    images: jax.Array, axis: int, size: int, whole: jax.Array, start: jax.Array
) -> jax.Array:
    """Resizes one axis to the length `whole`, of which `size` pixels from `start` on are taken."""
    shape = tuple(size if n == axis else side for n, side in enumerate(images.shape))
    scale = whole / jnp.asarray(images.shape[axis], jnp.float32)
    resized = jax.image.scale_and_translate(
        images.astype(jnp.float32),
        shape,
        (axis,),
        scale[jnp.newaxis],
        -start[jnp.newaxis].astype(jnp.float32),
        "linear",
        antialias=True,
        precision=jax.lax.Precision.HIGHEST,
    )
    # Halves go up, also those that rounding errors, other in each compiled program, bring below.
    return jnp.clip(jnp.floor(resized + 0.5 + _SLACK), 0, 255).astype(jnp.uint8)
