"""Predictions of a finished run's network for image files."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from jaxlt.data import Resize
from jaxlt.data.pipelines.normalisation import scale_and_shift
from jaxlt.errors import UsageError
from jaxlt.evaluation.description import Description
from jaxlt.evaluation.image_files import first_line, fit_image, read_image
from jaxlt.models.adaptation.trainable import join
from jaxlt.runs.checkpoint import quiet_garbage
from jaxlt.runs.stored_arrays import stored_arrays
from jaxlt.runs.workdir import saved_steps

_logger = logging.getLogger(__name__)

_BATCH_SIZE = 64
_READERS = 4


class Prediction(NamedTuple):
    """One of the classes that an image may be of.

    Attributes:
        class_name: as in the run's data.
        probability: softmax of the logits, in [0, 1].
    """

    class_name: str
    probability: float


class Predictor:
    """A trained network with all that it needs to take images as they are stored.

    `Predictor.load` makes one of a run's directory.

    Attributes:
        network: the module.
        variables: what it is applied to: `params`, all of them, and `batch_stats`.
        logits_fn: from such variables and images of type uint8, (B, H, W, C), to logits; pure.
    """

    def __init__(self, description: Description, variables: Any):
        self._description = description
        self.variables = variables
        scale, shift = scale_and_shift(description.mean, description.std)
        self.network = model = description.network()

        def logits(variables: Any, images: jax.Array) -> jax.Array:
            return jnp.asarray(model.apply(variables, images * scale + shift, train=False))

        @jax.jit
        def features(variables: Any, images: jax.Array) -> jax.Array:
            normalised = images * scale + shift
            return jnp.asarray(model.apply(variables, normalised, train=False, method="features"))

        self.logits_fn = logits
        self._logits, self._features = jax.jit(logits), features

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(self._description.class_names)

    @property
    def class_numbers(self) -> tuple[int, ...]:
        """What the classes are numbered outside the run, by label; see `Source.class_numbers`."""
        return tuple(self._description.class_numbers or range(self._description.num_classes))

    @property
    def resize(self) -> Resize:
        """How image files are brought to the run's shape."""
        return self._description.resize

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the network takes."""
        return self._description.shape

    @classmethod
    def load(cls, path: str | Path, step: int | None = None) -> Self:
        """Reads a run's directory: `model.json` and a checkpoint.

        Args:
            path: the directory.
            step: of the checkpoint; None for the newest that is whole.

        Raises:
            UsageError: the directory is no run's, or has no checkpoint that can be read.
        """
        path = Path(path)
        description = Description.read(path / "model.json")
        if not (path / "result.json").exists():
            raise UsageError(f"run in {path} must be finished, it has no result.json")
        try:
            frozen = description.frozen()
        except UsageError as error:
            raise UsageError(
                f"{path / 'model.json'} names a pretrained network: {error}"
            ) from error
        variables = _restore_newest(path / "checkpoints", description, step)
        return cls(description, {**variables, "params": join(variables["params"], frozen)})

    def in_float32(self) -> Self:
        """Returns the same network with computations of 32 bits, whichever it was trained with."""
        description = dataclasses.replace(self._description, precision="float32")
        return type(self)(description, self.variables)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 images (B, H, W, C) of the run's shape to float32 logits (B, num_classes).

        Batch norm normalises by its running statistics.

        Raises:
            ValueError: the images have another type or shape.
        """
        self._check_images(images)
        return np.asarray(self._logits(self.variables, images))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 images (B, H, W, C) of the run's shape to float32 features (B, D).

        They are what the classifier sees; batch norm normalises by its running statistics.

        Raises:
            ValueError: the images have another type or shape.
        """
        self._check_images(images)
        return np.asarray(self._features(self.variables, images))

    def _check_images(self, images: np.ndarray) -> None:
        shape = self._description.shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise ValueError(
                f"images were {images.dtype} of shape {images.shape}, must be uint8 of shape "
                f"(B, {', '.join(map(str, shape))})"
            )

    def top_k(self, paths: Sequence[str | Path], k: int = 5) -> list[list[Prediction]]:
        """Finds the likeliest classes of image files.

        A file, of any format that Pillow reads, is converted to the run's channels and resized to
        its image shape as its test images were (bilinear, antialiased). The probabilities are the
        softmax of the logits as they are: with a cosine or a nearest-class-mean head, whose logits
        have no scale, they rank the classes but are far too even.

        Args:
            paths: image files.
            k: number of classes, in 1..num_classes.

        Returns:
            For each file, its k likeliest classes, the likeliest first.

        Raises:
            UsageError: `k` is out of its range, a file cannot be read as an image, or the run's
                images are neither grey nor RGB.
        """
        if not 1 <= k <= self._description.num_classes:
            raise UsageError(
                f"top_k was {k}, must be in 1..{self._description.num_classes}, "
                "the number of classes"
            )
        return [self._likeliest(row, k) for row in self._logits_of_files(paths)]

    def _logits_of_files(self, paths: Sequence[str | Path]) -> Iterator[np.ndarray]:
        for start in range(0, len(paths), _BATCH_SIZE):
            chunk = paths[start : start + _BATCH_SIZE]
            yield from self.logits(self.read_files(chunk))

    def _likeliest(self, logits: np.ndarray, k: int) -> list[Prediction]:
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = exponentials / exponentials.sum()
        names = self._description.class_names
        order = np.argsort(-logits, kind="stable")[:k]
        return [Prediction(names[c], float(probabilities[c])) for c in order]

    def read_files(self, paths: Sequence[str | Path], resize: Resize | None = None) -> np.ndarray:
        """Reads image files as `top_k` does, into uint8 (B, H, W, C) of the run's shape.

        Args:
            paths: image files.
            resize: how, in place of the run's own way.

        Raises:
            UsageError: a file cannot be read as an image, or the run's images are neither grey
                nor RGB.
        """
        resize = resize or self._description.resize
        read = partial(read_image, shape=self._description.shape, resize=resize)
        with ThreadPoolExecutor(_READERS) as readers:
            return np.stack(list(readers.map(read, map(Path, paths))))

    def fit(self, images: np.ndarray) -> np.ndarray:
        """Converts images of any shape to the run's, as `top_k` converts those of files.

        Args:
            images: uint8 (B, H, W, C), grey or RGB.

        Returns:
            uint8 images (B, H, W, C) of the run's shape.

        Raises:
            UsageError: the images are neither grey nor RGB, here or in the run.
        """
        if images.shape[1:] == self._description.shape:
            return images
        return np.stack([fit_image(image, self._description.shape) for image in images])


def _restore_newest(directory: Path, description: Description, step: int | None) -> Any:
    """Returns the variables of the newest checkpoint that can be read, or of that of a step."""
    steps = saved_steps(directory)[::-1]
    if step is not None:
        if step not in steps:
            raise UsageError(
                f"run directory {directory.parent} has no checkpoint of step {step}, it has "
                f"{', '.join(map(str, steps)) or 'none'}"
            )
        steps = [step]
    if not steps:
        raise UsageError(f"run directory {directory.parent} has no checkpoint in {directory.name}")
    for step in steps:
        try:
            with quiet_garbage():
                return _restore(directory / str(step) / "state", description)
        # Orbax has no one exception for a damaged file.
        except Exception as error:
            _logger.warning(
                "checkpoint of step %d in %s cannot be read: %s",
                step,
                directory,
                first_line(error),
            )
    raise UsageError(f"checkpoints in {directory}: none of the {len(steps)} can be read")


def _restore(path: Path, description: Description) -> Any:
    """Reads parameters and running statistics, whatever else training has saved with them."""
    variables, _ = description.shapes()
    # As NumPy arrays: the devices that the state was saved from need not be here.
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), variables)
    # Orbax makes NumPy arrays of the file's shapes, whatever those asked for.
    _check_shapes(stored_arrays(path.absolute()), variables)
    with ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(
            path.absolute(),
            args=ocp.args.PyTreeRestore(variables, restore_args=as_numpy, partial_restore=True),
        )
    return jax.device_put(restored)


def _check_shapes(tree: Any, variables: Any) -> None:
    stored: dict[Any, Any] = flatten_dict(tree)
    wanted: dict[Any, Any] = flatten_dict(variables)
    if any(tuple(stored[path].shape) != leaf.shape for path, leaf in wanted.items()):
        raise ValueError("its parameters are not those of the network in model.json")
