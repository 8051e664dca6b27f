"""LADE against NumPy written from its equation, and what couples the rows of a batch."""

from typing import Any

import finite_differences
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_problems import quick

from jaxlt import losses

pytestmark = pytest.mark.usefixtures("x64")
COUNTS = (90, 40, 12, 3)
PRIOR = np.array(COUNTS) / sum(COUNTS)
_rng = np.random.default_rng(0)
LOGITS = 2 * _rng.normal(size=(8, 4))
LABELS: Any = np.array([0, 0, 1, 0, 2, 1, 0, 3])
WITHOUT_RAREST: Any = np.array([0, 0, 1, 0, 2, 1, 0, 1])
logit = arrays(np.float64, (8, 4), elements=st.floats(-5, 5))


def literal_regularizer(logits, labels, regularization):
    total = 0.0
    for c in range(len(COUNTS)):
        own = [row[c] for row, label in zip(logits, labels, strict=True) if label == c]
        ratios = [np.exp(row[c] - np.log(PRIOR[c]) + np.log(1 / len(COUNTS))) for row in logits]
        log_mean = np.log(np.mean(ratios))
        mean = np.mean(own) if own else 0.0
        total -= PRIOR[c] * (mean - log_mean - regularization * log_mean**2)
    return total


def literal_objective(logits, labels, weight, regularization):
    adjusted = logits + np.log(PRIOR)
    log_p = adjusted - np.log(np.exp(adjusted).sum(1, keepdims=True))
    balanced = -log_p[np.arange(len(labels)), labels].mean()
    return balanced + weight * literal_regularizer(logits, labels, regularization)


@pytest.mark.parametrize("labels", [LABELS, WITHOUT_RAREST], ids=["all classes", "one absent"])
@pytest.mark.parametrize("weights", [(0.1, 0.1), (0.7, 0.3)])
def test_batch_mean_is_the_objective(labels, weights):
    def mean(x):
        weight, regularization = weights
        options = {"weight": weight, "regularization": regularization}
        return losses.lade(x, labels, COUNTS, **options).mean()

    value, gradient = jax.value_and_grad(mean)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(value, literal_objective(LOGITS, labels, *weights), rtol=1e-12)
    expected = finite_differences.gradient(lambda x: literal_objective(x, labels, *weights), LOGITS)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-9)


def test_defaults_are_the_published_weights():
    value = losses.lade(jnp.asarray(LOGITS), LABELS, COUNTS).mean()
    np.testing.assert_allclose(value, literal_objective(LOGITS, LABELS, 0.1, 0.1), rtol=1e-12)


@quick
@given(logit)
def test_regularizer_is_charged_to_all_images_alike(x):
    extra = losses.lade(jnp.asarray(x), LABELS, COUNTS) - losses.balanced_softmax(
        jnp.asarray(x), LABELS, COUNTS
    )
    expected = 0.1 * literal_regularizer(x, LABELS, 0.1)
    np.testing.assert_allclose(extra, np.full(8, expected), rtol=0, atol=1e-10)


@quick
@given(logit, st.floats(-10, 10))
def test_shift_of_all_logits_is_seen_by_the_square_alone(x, shift):
    def loss(x, regularization):
        return losses.lade(jnp.asarray(x), LABELS, COUNTS, regularization=regularization)

    np.testing.assert_allclose(loss(x + shift, 0.0), loss(x, 0.0), rtol=0, atol=1e-10)
    if abs(shift) > 0.1:
        # -> infinity on both sides: the square keeps logits from drifting.
        assert (loss(x + 1e3 * shift, 0.1) > loss(x, 0.1)).all()


@quick
@given(logit)
def test_padding_is_left_out(x):
    padded = np.concatenate([x, 7 * np.ones((3, 4))])
    labels: Any = np.concatenate([LABELS, [-1, 4, -1]])
    value, pullback = jax.vjp(lambda x: losses.lade(x, labels, COUNTS), jnp.asarray(padded))
    alone, alone_pullback = jax.vjp(lambda x: losses.lade(x, LABELS, COUNTS), jnp.asarray(x))
    np.testing.assert_allclose(value, np.concatenate([alone, np.zeros(3)]), rtol=1e-12)
    (gradient,), (expected,) = pullback(jnp.ones(11)), alone_pullback(jnp.ones(8))
    np.testing.assert_allclose(gradient[:8], expected, rtol=0, atol=1e-12)
    assert (gradient[8:] == 0).all()
