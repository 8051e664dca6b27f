"""What `tests/conftest.py` forbids in the folders of the core: these tests are in one of them."""

import warnings

import jax.numpy as jnp
import pytest


def test_no_shape_changes_unless_the_code_says_so():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.add(jnp.ones(2), jnp.ones((2, 2)))


def test_no_dtype_changes_unless_the_code_says_so():
    with pytest.raises(ValueError, match="promotion"):
        jnp.add(jnp.ones(2), jnp.ones(2, jnp.int32))


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning):
        warnings.warn("something", stacklevel=1)
