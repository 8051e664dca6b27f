"""Label-aware smoothing against NumPy, and the laws of its factors."""

import math
from typing import Any

import finite_differences
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_problems import quick

from jaxlt import losses

pytestmark = pytest.mark.usefixtures("x64")
SHAPES = ("concave", "linear", "convex")
COUNTS = (300, 20, 77, 5, 150)
_rng = np.random.default_rng(0)
LOGITS = 2 * _rng.normal(size=(9, 5))
LABELS: Any = np.array([0, 1, 2, 3, 4, 3, 0, 2, 1])
counts = st.lists(st.integers(1, 5000), min_size=2, max_size=8)
factor = st.floats(0, 1)


def literal_factor(count, head, tail, shape):
    size = (count - min(COUNTS)) / (max(COUNTS) - min(COUNTS))
    return {
        "concave": tail + (head - tail) * math.sin(math.pi * size / 2),
        "linear": tail + (head - tail) * size,
        "convex": head + (head - tail) * math.sin(3 * math.pi / 2 + math.pi * size / 2),
    }[shape]


def literal_loss(logits, shape):
    total = 0
    for row, label in zip(logits, LABELS, strict=True):
        log_p = row - np.log(np.exp(row).sum())
        eps = literal_factor(COUNTS[label], 0.4, 0.1, shape)
        total += (1 - eps) * -log_p[label] + eps * np.mean(-log_p)
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_those_of_the_equation(shape):
    def loss(x):
        return losses.label_aware_smoothing(x, LABELS, COUNTS, 0.4, 0.1, shape).sum()

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(value, literal_loss(LOGITS, shape), rtol=1e-12)
    expected = finite_differences.gradient(lambda x: literal_loss(x, shape), LOGITS)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors(shape):
    expected = [literal_factor(n, 0.3, 0.05, shape) for n in COUNTS]
    factors = losses.smoothing_factors(COUNTS, 0.3, 0.05, shape)
    np.testing.assert_allclose(factors, expected, rtol=1e-12)


def test_defaults_to_concave():
    np.testing.assert_array_equal(
        losses.smoothing_factors(COUNTS, 0.3, 0.0),
        losses.smoothing_factors(COUNTS, 0.3, 0.0, "concave"),
    )


class TestLaws:
    @quick
    @given(counts, factor, factor, st.sampled_from(SHAPES))
    def test_factors_run_monotonously_from_tail_to_head(self, counts, head, tail, shape):
        factors = np.asarray(losses.smoothing_factors(counts, head, tail, shape))
        order = np.argsort(counts, kind="stable")
        rises = np.diff(factors[order]) * np.sign(head - tail)
        assert (rises >= -1e-12).all()
        np.testing.assert_allclose(factors[order[-1]], head, atol=1e-12)
        if min(counts) < max(counts):
            np.testing.assert_allclose(factors[order[0]], tail, atol=1e-12)

    @quick
    @given(counts, factor, factor)
    def test_shapes_are_ordered(self, counts, one, other):
        head, tail = max(one, other), min(one, other)
        by_shape = [losses.smoothing_factors(counts, head, tail, shape) for shape in SHAPES]
        assert (by_shape[0] >= by_shape[1] - 1e-12).all()
        assert (by_shape[1] >= by_shape[2] - 1e-12).all()

    @pytest.mark.parametrize("shape", SHAPES)
    def test_classes_of_equal_size_have_the_head_factor(self, shape):
        np.testing.assert_allclose(losses.smoothing_factors((7, 7, 7), 0.4, 0.1, shape), 0.4)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_without_smoothing_is_cross_entropy(self, shape):
        ours = losses.label_aware_smoothing(jnp.asarray(LOGITS), LABELS, COUNTS, 0.0, 0.0, shape)
        np.testing.assert_array_equal(ours, losses.cross_entropy(jnp.asarray(LOGITS), LABELS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 0.1), r"head must lie in \[0, 1\], got 1.5"),
        ((0.4, -0.1), r"tail must lie in \[0, 1\], got -0.1"),
        ((0.4, 0.1, "power"), "shape must be one of concave, linear, convex, got 'power'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        losses.smoothing_factors(COUNTS, *arguments)
