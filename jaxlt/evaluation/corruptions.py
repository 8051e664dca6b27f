"""ImageNet-C (Hendrycks and Dietterich, ICLR 2019): corruptions and the corruption error."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxlt.data.sampling.random_numbers import stream_key
from jaxlt.errors import UsageError

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
VALIDATION_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Corruptions for choosing hyperparameters, which the mean does not count."""
KNOWN_CORRUPTIONS = (*CORRUPTIONS, *VALIDATION_CORRUPTIONS)

_OF_ALEXNET = (
    *(0.886428, 0.894468, 0.922640),
    *(0.819880, 0.826268, 0.785948, 0.798360),
    *(0.866816, 0.826572, 0.819324, 0.564592),
    *(0.853204, 0.646056, 0.717840, 0.606500),
)
ALEXNET_ERRORS: Mapping[str, float] = dict(zip(CORRUPTIONS, _OF_ALEXNET, strict=True))
"""AlexNet's published errors on ImageNet-C, means over the severities."""

_SIDE = 224
# These do not depend on how many pixels objects have or, the last two, go by the grid of pixels.
_AT_OWN_SIZE = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("brightness", "contrast", "saturate", "pixelate", "jpeg_compression"),
)
# They draw from generators of their own; the others from NumPy's global one.
_SEEDED_BY_ARGUMENT = ("impulse_noise", "glass_blur")


class Corruption:
    """One corruption at one severity: a pure function of a seed, an image and its number.

    All parameters are ImageNet-C's, for images of 224 pixels. Noise, brightness, contrast,
    pixelation and JPEG compression act on an image at its own size, so they look stronger on small
    images. Blurs, weather and the elastic transform have lengths in pixels for parameters. They act
    on the image enlarged by the whole number that brings its shorter side nearest to 224 pixels;
    then each square that was one pixel is averaged. So a blur is as wide in relation to the object
    as in ImageNet-C. CIFAR-10-C has milder parameters of its own, so its results are others.

    A gray image becomes RGB for the corruptions of enlarged images, and the result is its luma.

    Args:
        name: one of `CORRUPTIONS` or `VALIDATION_CORRUPTIONS`.
        severity: 1 to 5.
        seed: of the random draws.

    Raises:
        UsageError: the library is not installed, or the corruption or the severity is unknown.
    """

    def __init__(self, name: str, severity: int, seed: int):
        if name not in KNOWN_CORRUPTIONS:
            known = ", ".join(KNOWN_CORRUPTIONS)
            raise UsageError(f"corruption must be one of {known}, got {name!r}")
        if severity not in SEVERITIES:
            raise UsageError(f"severity must lie in 1..5, got {severity}")
        try:
            from imagecorruptions import corruption_dict
        except ImportError as error:
            raise UsageError(
                f"imagecorruptions-imaug must be installed to make corruptions ({error}): "
                "python3 -m pip install 'jaxlt[ood]'"
            ) from error
        self._corrupt: Any = corruption_dict[name]
        self._name, self._severity, self._seed = name, severity, seed

    def __call__(self, image: np.ndarray, number: int) -> np.ndarray:
        """Corrupts an image, uint8 (H, W, 1 or 3), with draws by its number in its set."""
        if self._name in _AT_OWN_SIZE:
            return self._apply(image, number).reshape(image.shape)
        (height, width, channels), gray = image.shape, image.shape[-1] == 1
        factor = max(1, round(_SIDE / min(height, width)))
        colors = np.repeat(image, 3, axis=-1) if gray else image
        enlarged = colors.repeat(factor, axis=0).repeat(factor, axis=1)
        squares = self._apply(enlarged, number).reshape(height, factor, width, factor, 3)
        corrupted = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
        shown = Image.fromarray(corrupted).convert("L") if gray else corrupted
        return np.asarray(shown).reshape(height, width, channels)

    def _apply(self, image: np.ndarray, number: int) -> np.ndarray:
        stream = f"corruption {self._name} {self._severity} {number}"
        seed = stream_key(self._seed, stream) % 2**32
        options: dict[str, Any] = {"seed": seed} if self._name in _SEEDED_BY_ARGUMENT else {}
        pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        with _global_seed(seed), contextlib.redirect_stdout(io.StringIO()):
            return np.asarray(self._corrupt(pixels, self._severity, **options)).astype(np.uint8)


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    before = np.random.get_state()  # noqa: NPY002 (the library draws from the global generator)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def corruption_errors(
    errors: Mapping[str, np.ndarray], baseline: Mapping[str, np.ndarray | float] | None
) -> dict[str, float]:
    """Returns the corruption error of each corruption.

    With a baseline it is `CE_c = sum_s E_sc / sum_s E_sc(baseline)` (section 4.1 of the paper), and
    NaN where the baseline makes no error or has no number. Without one it is the mean error over
    the severities.

    Args:
        errors: for each corruption (S,) top-1 errors in [0, 1], one a severity.
        baseline: by corruption the baseline's errors, or the mean of them.
    """
    found = {}
    for name, values in errors.items():
        divisor = 1.0 if baseline is None else float(np.mean(baseline.get(name, 0.0)))
        found[name] = float(np.mean(values)) / divisor if divisor > 0 else float("nan")
    return found


def mean_corruption_error(corruption_errors: Mapping[str, float]) -> float:
    """Returns the mean over those of the 15 given, NaN for none; mCE with a baseline."""
    values = [value for name, value in corruption_errors.items() if name in CORRUPTIONS]
    return float(np.mean(values)) if values else float("nan")
