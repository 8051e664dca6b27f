"""Types of at least 32 bits, and powers of two that round nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.batch.precision import at_least_32_bits, of_one_type, powers_of_two


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_powers_of_two_are_exact_and_near(dtype, data):
    modulus = dtype(data.draw(st.floats(0, allow_nan=False, width=8 * dtype().itemsize)))
    tiny = float(np.finfo(dtype).tiny)
    shrink, scale = (float(x) for x in powers_of_two(jnp.asarray(modulus)))
    assert np.frexp(shrink)[0] == np.frexp(scale)[0] == 0.5
    assert shrink * scale == 1
    if tiny <= modulus <= 1 / tiny:
        assert 0.66 < modulus * shrink <= 1.5
    assert np.isinf(modulus) or modulus * shrink <= 4
    # Neither leaves the range of normal floats.
    assert tiny <= min(shrink, scale) <= max(shrink, scale) <= 1 / tiny


def test_each_number_has_its_own_and_no_derivative():
    moduli = jnp.array([[0.9, 5.0]])
    shrink, scale = powers_of_two(moduli)
    assert shrink[0].tolist() == [1.0, 0.25]
    assert scale[0].tolist() == [1.0, 4.0]
    assert jax.grad(lambda x: powers_of_two(x)[1].sum())(moduli).sum() == 0


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("int8", "float32"), ("float32", "float32"), ("complex64",) * 2],
)
def test_at_least_32_bits(dtype, expected):
    assert at_least_32_bits(jnp.ones(2, dtype)).dtype == expected


def test_one_type_also_where_promotion_is_strict():
    with jax.numpy_dtype_promotion("strict"):
        one, other = of_one_type(jnp.ones(2, jnp.bfloat16), jnp.ones(2))
    assert one.dtype == other.dtype == jnp.float32
