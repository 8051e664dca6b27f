"""ImbSAM where the tail is absent."""

import jax.numpy as jnp
import pytest
from small_problems import (
    METHODS,
    assert_close,
    batch,
    first_update,
    initial_params,
    plain_gradient,
)

pytestmark = pytest.mark.usefixtures("x64")


def test_imb_sam_without_tail_image_is_plain():
    x, y = batch(0)
    y = jnp.where(y > 2, 0, y)
    gradient, state = first_update(METHODS["imb_sam"](), x, y)
    assert_close(gradient, plain_gradient(initial_params(), x, y), 1e-14)
    assert state.perturbation_norm == state.sharpness == 0
