"""Sums by class: the mean they add up to, shares, padding, and precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_problems import quick

import jaxlt

finite = st.floats(-1e3, 1e3)


@pytest.mark.usefixtures("x64")
class TestLaws:
    @quick
    @given(arrays(float, 12, elements=finite), arrays(int, 12, elements=st.integers(0, 3)))
    def test_class_terms_sum_to_the_mean_loss(self, losses, labels):
        result = jaxlt.class_losses(losses, labels, 4)
        np.testing.assert_allclose(result.sums.sum() / 12, losses.mean(), atol=1e-12)
        np.testing.assert_allclose(result.mean(), losses.mean(), atol=1e-12)
        for c in range(4):
            np.testing.assert_allclose(result.sums[c], losses[labels == c].sum(), atol=1e-12)
        np.testing.assert_array_equal(result.counts, np.bincount(labels, minlength=4))

    @quick
    @given(
        arrays(float, 12, elements=finite),
        arrays(float, (12, 4), elements=st.floats(0, 1)),
    )
    def test_shares(self, losses, shares):
        result = jaxlt.class_losses(losses, shares, 4)
        np.testing.assert_allclose(result.sums, losses @ shares, atol=1e-9)
        np.testing.assert_allclose(result.counts, shares.sum(axis=0), atol=1e-12)

    @quick
    @given(arrays(float, 12, elements=finite), arrays(int, 12, elements=st.integers(-2, 5)))
    def test_padding_is_not_there(self, losses, labels):
        """Labels outside [0, C) against the batch without their rows."""
        real = (labels >= 0) & (labels < 4)
        result = jaxlt.class_losses(losses, labels, 4)
        expected = losses[real].mean() if real.any() else 0.0
        np.testing.assert_allclose(result.mean(), expected, atol=1e-12)
        assert int(result.counts.sum()) == real.sum()


def test_mixup_shares_both_classes():
    result = jaxlt.class_losses(
        jnp.asarray([2.0, 4.0]), jnp.asarray([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]]), 3
    )
    np.testing.assert_array_equal(result.sums, [0.5, 1.5, 0.0])
    np.testing.assert_array_equal(result.counts, [0.25, 0.75, 0.0])
    assert result.mean() == 2.0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_accumulates_in_32_bits(dtype):
    """4096 ones stop at 256 in bfloat16 and at 2048 in float16."""
    result = jaxlt.class_losses(jnp.ones(4096, dtype), jnp.zeros(4096, int), 2)
    assert result.sums.dtype == result.counts.dtype == jnp.float32
    np.testing.assert_array_equal(result.sums, [4096, 0])
    np.testing.assert_array_equal(result.counts, [4096, 0])


@pytest.mark.parametrize("counts", [jnp.int32, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("sums", [jnp.float32, jnp.bfloat16])
def test_mean_of_sums_and_counts_of_any_type(sums, counts):
    result = jaxlt.ClassLosses(jnp.asarray([600, 3], sums), jnp.asarray([300, 1], counts))
    assert result.mean().dtype == jnp.float32
    np.testing.assert_allclose(result.mean(), 603 / 301, rtol=1e-2)


def test_is_a_pytree():
    result = jaxlt.class_losses(jnp.ones(3), jnp.asarray([0, 1, 1]), 2)
    doubled = jax.jit(lambda r: jax.tree.map(lambda leaf: 2 * leaf, r))(result)
    assert isinstance(doubled, jaxlt.ClassLosses)
    np.testing.assert_array_equal(doubled.counts, [2, 4])


def test_axis_name_sums_over_a_mapped_axis():
    losses, labels = jnp.arange(12.0), jnp.arange(12) % 3
    whole = jaxlt.class_losses(losses, labels, 3)

    def of_part(losses, labels):
        return jaxlt.class_losses(losses, labels, 3, axis_name="parts")

    parts = jax.vmap(of_part, axis_name="parts")(losses.reshape(4, 3), labels.reshape(4, 3))
    for part in range(4):
        np.testing.assert_array_equal(parts.sums[part], whole.sums)
        np.testing.assert_array_equal(parts.counts[part], whole.counts)


@pytest.mark.parametrize(
    ("losses", "labels", "message"),
    [
        ((), (4,), r"per_example must have shape \(B,\), one loss an example, got \(\)"),
        ((4, 3), (4,), r"per_example must have shape \(B,\), one loss an example, got \(4, 3\)"),
        ((4,), (5,), r"labels must have shape \(4,\) or \(4, 3\), got \(5,\)"),
        ((4,), (4, 2), r"labels must have shape \(4,\) or \(4, 3\), got \(4, 2\)"),
        ((4,), (), r"labels must have shape \(4,\) or \(4, 3\), got \(\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_arrays")
def test_shape_errors_name_the_argument(losses, labels, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        jaxlt.class_losses(jnp.zeros(losses), jnp.zeros(labels, int), 3)
