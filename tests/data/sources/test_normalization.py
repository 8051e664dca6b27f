import numpy as np

from jaxlt.data.sources.source import scale_and_shift


def test_black_and_white_become_standard_scores():
    scale, shift = scale_and_shift((0.5, 0.25), (0.25, 0.5))
    assert scale.dtype == shift.dtype == np.float32
    np.testing.assert_allclose(shift, [-2, -0.5])
    np.testing.assert_allclose(scale * 255 + shift, [2, 1.5], rtol=1e-6)
