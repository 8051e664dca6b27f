"""Gaussian clouded logits against NumPy, and their noise against its analytic moments."""

from typing import Any

import finite_differences
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats
from small_problems import quick

from jaxlt import losses

pytestmark = pytest.mark.usefixtures("x64")
COUNTS = (500, 120, 31, 6)
_rng = np.random.default_rng(0)
COSINES = np.tanh(_rng.normal(size=(7, 4)))
LABELS: Any = np.array([0, 3, 1, 2, 3, 0, 1])
NOISE = np.clip(_rng.normal(scale=1 / 3, size=(7, 4)), -1, 1)
cosines = arrays(np.float64, (7, 4), elements=st.floats(-1, 1))


def literal(x, noise, noise_scale, margin, scale, focusing):
    """The equation row by row, each factor `(1 - p_y)**focusing` and CE, (B,) both."""
    rarity = [np.log(max(COUNTS)) - np.log(n) for n in COUNTS]
    factors, values = [], []
    for row, label, xi in zip(x, LABELS, noise, strict=True):
        z = np.array(
            [
                row[c] - noise_scale * abs(xi[c]) * rarity[c] / max(rarity) - margin * (c == label)
                for c in range(len(COUNTS))
            ]
        )
        p = np.exp(scale * z) / np.exp(scale * z).sum()
        factors.append((1 - p[label]) ** focusing)
        values.append(-np.log(p[label]))
    return np.array(factors), np.array(values)


STAGES = {
    "first": {"noise_scale": 0.5, "margin": 0.0, "scale": 30.0, "focusing": 0.0},
    "second": {"noise_scale": 0.5, "margin": 0.1, "scale": 20.0, "focusing": 1.0},
    "second of Places": {"noise_scale": 1.0, "margin": 0.1, "scale": 15.0, "focusing": 1.0},
}


@pytest.mark.parametrize("stage", STAGES)
def test_value_and_gradient_are_those_of_the_equation(stage):
    options = STAGES[stage]
    value, pullback = jax.vjp(
        lambda x: losses.gcl(x, LABELS, COUNTS, jnp.asarray(NOISE), **options), jnp.asarray(COSINES)
    )
    factors, cross_entropies = literal(COSINES, NOISE, **options)
    np.testing.assert_allclose(value, factors * cross_entropies, rtol=1e-10)
    # As released, the focal factor is a constant to gradients.
    expected = finite_differences.gradient(
        lambda x: (factors * literal(x, NOISE, **options)[1]).sum(), COSINES
    )
    np.testing.assert_allclose(pullback(jnp.ones(7))[0], expected, rtol=0, atol=1e-7)


def test_defaults_are_those_of_the_first_stage():
    value = losses.gcl(jnp.asarray(COSINES), LABELS, COUNTS, jnp.asarray(NOISE))
    np.testing.assert_allclose(value, literal(COSINES, NOISE, **STAGES["first"])[1], rtol=1e-10)


@quick
@given(cosines)
def test_without_noise_and_margin_is_scaled_cross_entropy(x):
    ours = losses.gcl(jnp.asarray(x), LABELS, COUNTS, jnp.zeros((7, 4)), scale=11.0)
    np.testing.assert_allclose(ours, losses.cross_entropy(11.0 * x, LABELS), rtol=1e-12)


@quick
@given(cosines)
def test_classes_of_equal_size_have_no_noise(x):
    def loss(x):
        return losses.gcl(x, LABELS, (40,) * 4, jnp.asarray(NOISE))

    value, pullback = jax.vjp(loss, jnp.asarray(x))
    np.testing.assert_allclose(value, losses.cross_entropy(30.0 * x, LABELS), rtol=1e-12)
    assert np.isfinite(pullback(jnp.ones(7))[0]).all()


def test_noise_is_a_clamped_normal():
    """With a standard deviation of 1/3, the clamp acts at three of them."""
    noise = np.asarray(losses.gcl_noise(jax.random.key(1), (1000, 400)))
    assert noise.min() == -1
    assert noise.max() == 1
    sigma = stats.norm(scale=1 / 3)
    np.testing.assert_allclose((np.abs(noise) == 1).mean(), 2 * sigma.sf(1), rtol=0.1)
    inside = np.abs(noise[np.abs(noise) < 0.9])
    for edge in (0.1, 0.3, 0.6):
        share = (sigma.cdf(edge) - 0.5) / (sigma.cdf(0.9) - 0.5)
        np.testing.assert_allclose((inside < edge).mean(), share, atol=4e-3)


def test_expected_logits_follow_from_the_mean_absolute_noise():
    """Differences of the losses of all labels are differences of the clouded logits."""
    normal: Any = stats.norm(scale=1 / 3)
    mean_absolute = 2 * (
        integrate.quad(lambda x: x * normal.pdf(x), 0, 1)[0]
        + integrate.quad(normal.pdf, 1, np.inf)[0]
    )
    x = jnp.asarray(np.tile(COSINES[0], (40000, 1)))
    noise = losses.gcl_noise(jax.random.key(2), x.shape)
    by_label = jnp.stack(
        [losses.gcl(x, jnp.full(len(x), c), COUNTS, noise, noise_scale=0.7) for c in range(4)], 1
    )
    # The largest class has no noise.
    clouded = COSINES[0, 0] - (by_label - by_label[:, :1]) / 30.0
    rarity = np.log(max(COUNTS) / np.array(COUNTS)) / np.log(max(COUNTS) / min(COUNTS))
    expected = COSINES[0] - 0.7 * mean_absolute * rarity
    np.testing.assert_allclose(clouded.mean(0), expected, rtol=0, atol=3e-3)


@pytest.mark.usefixtures("unchecked_arrays")
def test_noise_of_another_shape():
    with pytest.raises(
        ValueError, match=r"^noise must have the logits' shape \(7, 4\), got \(4,\)"
    ):
        losses.gcl(jnp.asarray(COSINES), LABELS, COUNTS, jnp.zeros(4))
