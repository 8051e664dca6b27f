"""Cutout: a black square at a uniform place of each training image.

DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlt.data.sampling.random_numbers import random_integers, stream_key

# Images have less than 2**15 rows and columns, so that a place among them takes 31 bits.
_PLACES = 2**16


def draw_cutout(seed: int, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Draws the squares' centers, two fields of `Draws`, for int64 positions (...,)."""
    row, column = (
        random_integers(stream_key(seed, f"cutout {axis}"), positions, _PLACES).astype(np.int32)
        for axis in ("row", "column")
    )
    return {"cutout_row": row, "cutout_column": column}


def cutout_start(center: Any, extent: int, side: int) -> Any:
    """Returns the squares' first row (or column), maybe outside the image's extent, by draws."""
    return center * extent // _PLACES - side // 2


def cutout_hole(draws: Any, shape: Any, side: int, arange: Callable[[Any], Any]) -> Any:
    """Returns where images of shape (H, W) are blackened by a step's `Draws`, bool (B, H, W).

    The draws are arrays of any library, and `arange` is of the same.
    """

    def covered(center: Any, extent: Any) -> Any:
        distance = arange(extent) - cutout_start(center, extent, side)[:, None]
        return (distance >= 0) & (distance < side)

    rows, columns = covered(draws.cutout_row, shape[0]), covered(draws.cutout_column, shape[1])
    return rows[:, :, None] & columns[:, None, :]
