"""Per-channel normalisation of 8-bit pixels."""

from collections.abc import Sequence

import numpy as np


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, b), float32 (C,), so that a * pixel + b is (pixel / 255 - mean) / std.

    Args:
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
    """
    scale = 1 / (255 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)
