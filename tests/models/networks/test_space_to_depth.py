import jax.numpy as jnp
import numpy as np

from jaxlt.models.networks.vit import space_to_depth


def test_space_to_depth_keeps_each_square_together():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    moved = space_to_depth(jnp.asarray(images), 2)
    assert moved.shape == (2, 2, 3, 12)
    for row, column in np.ndindex(2, 3):
        square = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(moved[:, row, column], square.reshape(2, 12))
