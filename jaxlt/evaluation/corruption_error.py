"""The corruption error of ImageNet-C (Hendrycks and Dietterich, ICLR 2019)."""

from collections.abc import Mapping

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
VALIDATION_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Corruptions for choosing hyperparameters, which the mean does not count."""

ALEXNET_ERRORS: Mapping[str, float] = dict(
    zip(
        CORRUPTIONS,
        (
            *(0.886428, 0.894468, 0.922640),
            *(0.819880, 0.826268, 0.785948, 0.798360),
            *(0.866816, 0.826572, 0.819324, 0.564592),
            *(0.853204, 0.646056, 0.717840, 0.606500),
        ),
        strict=True,
    )
)
"""AlexNet's published errors on ImageNet-C, means over the severities."""


def corruption_errors(
    errors: Mapping[str, np.ndarray], baseline: Mapping[str, np.ndarray | float] | None
) -> dict[str, float]:
    """Computes the corruption error of each corruption.

    With a baseline it is `CE_c = sum_s E_sc / sum_s E_sc(baseline)` (section 4.1 of the paper),
    without one the mean error over the severities, unnormalised.

    Args:
        errors: for each corruption (S,) top-1 errors in [0, 1], one a severity.
        baseline: by corruption the baseline's errors, or the mean of them.

    Returns:
        A number for each corruption, NaN where the baseline makes no error or has no number.
    """
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    if baseline is None:
        return means
    divisors = {name: float(np.mean(baseline.get(name, 0.0))) for name in means}
    return {
        name: mean / divisors[name] if divisors[name] > 0 else float("nan")
        for name, mean in means.items()
    }


def mean_corruption_error(corruption_errors: Mapping[str, float]) -> float:
    """Averages over the corruptions of the benchmark, as many of its 15 as there are.

    Args:
        corruption_errors: see `corruption_errors`.

    Returns:
        mCE where these are normalised by a baseline; NaN if none is of the 15.
    """
    values = [value for name, value in corruption_errors.items() if name in CORRUPTIONS]
    return float(np.mean(values)) if values else float("nan")
