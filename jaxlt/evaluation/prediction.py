"""Predictions of a finished run's network for image files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from PIL import Image

from jaxlt.data import Resize
from jaxlt.data.sources.decoding import decode
from jaxlt.data.sources.resampling import center_crop, stretch
from jaxlt.data.sources.source import scale_and_shift
from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_content
from jaxlt.models.adaptation.trainable import join
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.reader import RunReader
from jaxlt.runs.rebuilt_network import build_network, frozen_parameters

_BATCH_SIZE = 64
_READERS = 4
_LIKELIEST = 5
_MODES = {1: "L", 3: "RGB"}


class Prediction(NamedTuple):
    """A class, as the run's data names it, and the softmax of the image's logits, in [0, 1]."""

    class_name: str
    probability: float


class Predictor:
    """A trained network with all that it needs to take images as they are stored.

    `Predictor.load` makes one of a run's directory.

    Args:
        description: what the network is.
        variables: `params` and `batch_stats` of it.

    Attributes:
        network: the module.
        variables: what it is applied to: `params`, all of them, and `batch_stats`.
        logits_fn: from such variables and images of type uint8, (B, H, W, C), to logits; pure.
        class_names: names of the classes, by label.
        class_numbers: what the classes are numbered outside the run, by label, see `Source`.
        resize: how image files are brought to the run's shape.
        image_shape: height, width and channels of the images that the network takes.

    Example:
        >>> from jaxlt import recipes
        >>> from jaxlt.evaluation import Predictor
        >>> run = recipes.train(recipes.named("sam_digits"), "runs/sam", seed=1)
        >>> predictor = Predictor.load(run.path)
        >>> predictor.class_names[:3]
        ('0', '1', '2')
    """

    def __init__(self, description: ModelDescription, variables: Any):
        self.description = description
        self.variables = variables
        self.class_names = description.class_names
        self.class_numbers = description.class_numbers or tuple(range(description.num_classes))
        self.resize: Resize = description.resize
        self.image_shape = description.image_shape
        scale, shift = scale_and_shift(description.mean, description.std)
        self.network = model = build_network(description)

        def apply(variables: Any, images: jax.Array, method: str | None = None) -> jax.Array:
            normalized = images * scale + shift
            return jnp.asarray(model.apply(variables, normalized, train=False, method=method))

        self.logits_fn = apply
        self._logits = jax.jit(apply)
        self._features = jax.jit(partial(apply, method="features"))

    @classmethod
    def load(cls, path: str | Path, step: int | None = None, *, unfinished: bool = False) -> Self:
        """Reads a run's `model.json` and a checkpoint.

        Args:
            path: directory of the run.
            step: of the checkpoint; None for the newest that is whole.
            unfinished: whether the run may still be training, or have been stopped.

        Raises:
            UsageError: the directory is no run's, or has no checkpoint that can be read.
        """
        run = RunReader(Path(path))
        description = run.description
        if not unfinished:
            run.check_finished()
        try:
            frozen = frozen_parameters(description)
        except UsageError as error:
            raise UsageError(
                f"{run.path / 'model.json'} must name the pretrained network: {error}"
            ) from error
        variables = run.variables(step)
        return cls(description, {**variables, "params": join(variables["params"], frozen)})

    def in_float32(self) -> Self:
        """Returns the same network with computations of 32 bits, whichever it was trained with."""
        description = msgspec.structs.replace(self.description, precision="float32")
        return type(self)(description, self.variables)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 images (B, H, W, C) of the run's shape to float32 logits (B, num_classes).

        ValueError says that they have another type or shape.
        """
        return np.asarray(self._logits(self.variables, self._checked(images)))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Maps images as `logits` does to the features (B, D) that the classifier sees."""
        return np.asarray(self._features(self.variables, self._checked(images)))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            shape = ", ".join(map(str, ("B", *self.image_shape)))
            got = f"{images.dtype} of shape {images.shape}"
            raise ValueError(f"images must be uint8 of shape ({shape}), got {got}")
        return images

    def top_k(self, paths: Sequence[str | Path], k: int | None = None) -> list[list[Prediction]]:
        """Finds the k likeliest classes of each image file, the likeliest first.

        A file is decoded as training decodes it (see `jaxlt.data.sources.decoding`), converted to
        the run's channels and resized as its test images were (bilinear, antialiased). The
        probabilities are the softmax of the logits. With a cosine or a nearest-class-mean head,
        whose logits have no scale, they rank the classes but are far too even.

        Args:
            paths: image files.
            k: number of classes, in 1..num_classes; None for 5, or all where they are fewer.

        Raises:
            UsageError: `k` is out of range, a file is no image, or the run's are not gray or RGB.
        """
        k, found = self.num_named(k), []
        for start in range(0, len(paths), _BATCH_SIZE):
            found += self.ranked(self.read_files(paths[start : start + _BATCH_SIZE]), k)
        return found

    def num_named(self, k: int | None) -> int:
        """Returns how many classes `top_k` names for a `k`; UsageError if it is out of range."""
        classes = len(self.class_names)
        k = min(_LIKELIEST, classes) if k is None else k
        if not 1 <= k <= classes:
            raise UsageError(f"top_k must lie in 1..{classes}, the classes, got {k}")
        return k

    def ranked(self, images: np.ndarray, k: int) -> list[list[Prediction]]:
        """Finds the k likeliest classes of images, best first; see `logits` and `top_k`."""
        found = []
        for logits in self.logits(images):
            exponentials = np.exp(logits.astype(np.float64) - logits.max())
            probabilities = (exponentials / exponentials.sum()).tolist()
            order = np.argsort(-logits, kind="stable")[:k]
            found.append([Prediction(self.class_names[c], probabilities[c]) for c in order])
        return found

    def read_files(self, paths: Sequence[str | Path], resize: Resize | None = None) -> np.ndarray:
        """Reads image files as `top_k` does, into uint8 (B, H, W, C) of the run's shape.

        Args:
            paths: image files; UsageError as for `top_k`.
            resize: how, in place of the run's own way.
        """
        read = partial(_read, shape=self.image_shape, resize=resize or self.resize)
        with ThreadPoolExecutor(_READERS) as readers:
            return np.stack(list(readers.map(read, map(Path, paths))))

    def fit(self, images: np.ndarray) -> np.ndarray:
        """Converts uint8 images (B, H, W, C) to the run's shape, as `top_k` converts files.

        UsageError says that those here or in the run are neither gray nor RGB.
        """
        if images.shape[1:] == self.image_shape:
            return images
        _mode(images.shape, "images to convert")
        mode = _mode(self.image_shape, "the run's images")
        gray = images.shape[-1] == 1
        pictures = [Image.fromarray(image[..., 0] if gray else image) for image in images]
        return np.stack([_stretched(one.convert(mode), self.image_shape) for one in pictures])


def _read(path: Path, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    mode = _mode(shape, "the run's images")
    try:
        image = Image.fromarray(decode(read_content(path))).convert(mode)
    except (OSError, ValueError) as error:
        got = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"image {path} must be a file that can be decoded: {got}") from error
    return _stretched(center_crop(image, shape[0]) if resize == "center_crop" else image, shape)


def _mode(shape: tuple[int, ...], whose: str) -> str:
    if shape[-1] not in _MODES:
        raise UsageError(f"{whose} must have 1 or 3 channels, got {shape[-1]}")
    return _MODES[shape[-1]]


def _stretched(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(stretch(image, *shape[:2])).reshape(shape)
