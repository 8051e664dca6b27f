import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.data.augment.crops import NUM_TRIES, resized_crop_box
from jaxlt.devices.backends import import_tensorflow


def reference_box(height, width, tries, place):
    """The rule in plain Python, as torchvision's RandomResizedCrop.get_params states it."""
    for area_draw, ratio_draw in tries.tolist():
        area = height * width * (0.08 + area_draw * (1 - 0.08))
        low, high = math.log(3 / 4), math.log(4 / 3)
        ratio = math.exp(low + ratio_draw * (high - low))
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            top = int(place[0] * (height - rows + 1))
            left = int(place[1] * (width - columns + 1))
            return top, left, rows, columns
    rows, columns = height, width
    if width / height < 3 / 4:
        rows = round(width / (3 / 4))
    elif width / height > 4 / 3:
        columns = round(height * (4 / 3))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def box(height, width, tries, place):
    tf = import_tensorflow()
    return tuple(
        resized_crop_box(
            tf.constant(height), tf.constant(width), tf.constant(tries), tf.constant(place)
        )
        .numpy()
        .tolist()
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32))
def test_boxes_are_those_of_the_rule(height, width, seed):
    random = np.random.default_rng(seed)
    tries, place = random.random((NUM_TRIES, 2)), random.random(2)
    found = box(height, width, tries, place)
    assert found == reference_box(height, width, tries, place)
    top, left, rows, columns = found
    assert 0 <= top <= top + rows <= height
    assert 0 <= left <= left + columns <= width


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100)), ((90, 100), None)],
)
def test_where_no_try_fits_the_middle_is_taken(shape, expected):
    height, width = shape
    # The whole area at a ratio that no such image has.
    tries = np.full((NUM_TRIES, 2), 1 - 2**-53) * (1, height >= width)
    assert box(height, width, tries, np.array([0.9, 0.9])) == (expected or (0, 0, height, width))


def test_later_tries_count_only_when_the_first_do_not_fit():
    # A square of the image's whole area is higher than the image.
    tries = np.full((NUM_TRIES, 2), (0.999, 0.5))
    tries[0] = 0.1, 0.5
    first = box(300, 400, tries, np.zeros(2))
    tries[0], tries[1] = (0.999, 0.5), (0.1, 0.5)
    assert first == box(300, 400, tries, np.zeros(2))
