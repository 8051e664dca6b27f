"""Predictions of a finished run's network for image files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxlt.data import Resize
from jaxlt.data.pipelines.batches import scale_and_shift
from jaxlt.errors import UsageError
from jaxlt.evaluation.image_files import fit_image, read_image
from jaxlt.models.adaptation.trainable import join
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.reader import RunReader

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
        class_names: names of the classes, by label.
        class_numbers: what the classes are numbered outside the run, by label, see `Source`.
        resize: how image files are brought to the run's shape.
        image_shape: height, width and channels of the images that the network takes.
    """

    def __init__(self, description: ModelDescription, variables: Any):
        self._description = description
        self.variables = variables
        self.class_names = description.class_names
        self.class_numbers = description.class_numbers or tuple(range(description.num_classes))
        self.resize: Resize = description.resize
        self.image_shape = description.image_shape
        scale, shift = scale_and_shift(description.mean, description.std)
        self.network = model = description.network()

        def apply(variables: Any, images: jax.Array, method: str | None = None) -> jax.Array:
            normalised = images * scale + shift
            return jnp.asarray(model.apply(variables, normalised, train=False, method=method))

        self.logits_fn = apply
        self._logits = jax.jit(apply)
        self._features = jax.jit(partial(apply, method="features"))

    @classmethod
    def load(cls, path: str | Path, step: int | None = None) -> Self:
        """Reads a run's directory: `model.json` and a checkpoint.

        Args:
            path: the directory.
            step: of the checkpoint; None for the newest that is whole.

        Raises:
            UsageError: the directory is no run's, or has no checkpoint that can be read.
        """
        run = RunReader(Path(path))
        description = run.description
        run.check_finished()
        try:
            frozen = description.frozen()
        except UsageError as error:
            raise UsageError(
                f"{run.path / 'model.json'} must name the pretrained network: {error}"
            ) from error
        variables = run.variables(step)
        return cls(description, {**variables, "params": join(variables["params"], frozen)})

    def in_float32(self) -> Self:
        """Returns the same network with computations of 32 bits, whichever it was trained with."""
        description = msgspec.structs.replace(self._description, precision="float32")
        return type(self)(description, self.variables)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 images (B, H, W, C) of the run's shape to float32 logits (B, num_classes).

        Raises:
            ValueError: the images have another type or shape.
        """
        self._check_images(images)
        return np.asarray(self._logits(self.variables, images))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Maps images as `logits` does to the features (B, D) that the classifier sees."""
        self._check_images(images)
        return np.asarray(self._features(self.variables, images))

    def _check_images(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images must be uint8 of shape (B, {', '.join(map(str, self.image_shape))}), got "
                f"{images.dtype} of shape {images.shape}"
            )

    def top_k(self, paths: Sequence[str | Path], k: int = 5) -> list[list[Prediction]]:
        """Finds the k likeliest classes of each image file, the likeliest first.

        A file, of any format that Pillow reads, is converted to the run's channels and resized to
        its image shape as its test images were (bilinear, antialiased). The probabilities are the
        softmax of the logits. With a cosine or a nearest-class-mean head, whose logits have no
        scale, they rank the classes but are far too even.

        Args:
            paths: image files.
            k: number of classes, in 1..num_classes.

        Raises:
            UsageError: `k` is out of its range, a file cannot be read as an image, or the run's
                images are neither grey nor RGB.
        """
        if not 1 <= k <= len(self.class_names):
            raise UsageError(f"top_k must lie in 1..{len(self.class_names)}, the classes, got {k}")
        return [self._likeliest(row, k) for row in self._logits_of_files(paths)]

    def _logits_of_files(self, paths: Sequence[str | Path]) -> Iterator[np.ndarray]:
        for start in range(0, len(paths), _BATCH_SIZE):
            chunk = paths[start : start + _BATCH_SIZE]
            yield from self.logits(self.read_files(chunk))

    def _likeliest(self, logits: np.ndarray, k: int) -> list[Prediction]:
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = exponentials / exponentials.sum()
        order = np.argsort(-logits, kind="stable")[:k]
        return [Prediction(self.class_names[c], float(probabilities[c])) for c in order]

    def read_files(self, paths: Sequence[str | Path], resize: Resize | None = None) -> np.ndarray:
        """Reads image files as `top_k` does, into uint8 (B, H, W, C) of the run's shape.

        Args:
            paths: image files.
            resize: how, in place of the run's own way.

        Raises:
            UsageError: a file cannot be read as an image, or the run's images are neither grey
                nor RGB.
        """
        resize = resize or self.resize
        read = partial(read_image, shape=self.image_shape, resize=resize)
        with ThreadPoolExecutor(_READERS) as readers:
            return np.stack(list(readers.map(read, map(Path, paths))))

    def fit(self, images: np.ndarray) -> np.ndarray:
        """Converts uint8 images (B, H, W, C) to the run's shape, as `top_k` converts files.

        Raises:
            UsageError: the images are neither grey nor RGB, here or in the run.
        """
        if images.shape[1:] == self.image_shape:
            return images
        return np.stack([fit_image(image, self.image_shape) for image in images])
