import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from jaxlt.errors import UsageError
from jaxlt.models import (
    CosineClassifier,
    LinearClassifier,
    NearestClassMeanClassifier,
    ScaledLinearClassifier,
)
from jaxlt.training.step.decoupling import nearest_class_mean, tau_normalized, with_unit_scale

seeds = st.integers(0, 2**16)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear(seed=0):
    return {"kernel": normal(seed, 6, 4), "bias": normal(seed + 1, 4)}


def logits(head, params, x):
    return np.asarray(head.apply({"params": params}, x))


@pytest.mark.parametrize("tau", [0.3, 0.7, 1, 2])
def test_tau_normalization_divides_each_column_by_a_power_of_its_norm(tau):
    params = linear()
    normalized = tau_normalized(params, tau)
    for j in range(4):
        column = params["kernel"][:, j].astype(np.float64)
        expected = column / sum(w * w for w in column) ** (tau / 2)
        np.testing.assert_allclose(normalized["kernel"][:, j], expected, rtol=1e-5)
    np.testing.assert_array_equal(normalized["bias"], np.zeros(4))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, factor=st.floats(0.01, 100))
def test_laws_of_tau_normalization(seed, factor):
    params, x = linear(seed), normal(seed + 2, 5, 6)
    unscaled = logits(LinearClassifier(4), tau_normalized(params, 0.0), x)
    np.testing.assert_allclose(unscaled, x @ params["kernel"], atol=1e-5)
    unit = tau_normalized(params, 1.0)["kernel"]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), 1, rtol=1e-5)
    larger = {**params, "kernel": np.float32(factor) * params["kernel"]}
    np.testing.assert_allclose(tau_normalized(larger, 1.0)["kernel"], unit, rtol=1e-5)
    np.testing.assert_allclose(
        tau_normalized(larger, 0.5)["kernel"],
        factor**0.5 * tau_normalized(params, 0.5)["kernel"],
        rtol=1e-5,
    )


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0])
def test_tau_normalization_leaves_zero_columns_and_cosines_alone(tau):
    kernel, x = normal(0, 6, 4), normal(1, 5, 6)
    kernel[:, 2] = 0
    normalized = tau_normalized({"kernel": kernel}, tau)
    assert set(normalized) == {"kernel"}
    np.testing.assert_array_equal(normalized["kernel"][:, 2], np.zeros(6))
    before, after = (
        logits(CosineClassifier(4), params, x) for params in ({"kernel": kernel}, normalized)
    )
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_unit_scale_keeps_the_logits():
    params, x = linear(), normal(2, 5, 6)
    scaled = with_unit_scale(params)
    np.testing.assert_array_equal(scaled["scale"], np.ones(4))
    np.testing.assert_array_equal(
        logits(ScaledLinearClassifier(4), scaled, x), logits(LinearClassifier(4), params, x)
    )
    shapes = jax.tree.map(jnp.shape, scaled)
    fresh = ScaledLinearClassifier(4).init(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, fresh) == shapes


def clustered(seed, offset=3.0):
    """Classes of different sizes, one a single image, in a random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(4), [9, 5, 3, 1]))
    features = offset + rng.normal(size=(4, 6))[labels] + rng.normal(size=(len(labels), 6))
    return features.astype(np.float32), labels


def unit_differences(features, mean):
    differences = features.astype(np.float64) - mean
    return np.stack([row / np.sqrt((row * row).sum()) for row in differences])


def test_class_means_are_those_of_a_loop():
    features, labels = clustered(0)
    params = nearest_class_mean(features, labels, 4)
    mean = np.zeros(6)
    for row in features:
        mean += row / len(features)
    sums, counts = np.zeros((4, 6)), np.zeros(4)
    for row, label in zip(features, labels, strict=True):
        unit = row - mean
        sums[label] += unit / np.sqrt(unit @ unit)
        counts[label] += 1
    np.testing.assert_allclose(params["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(params["centers"], sums / counts[:, None], atol=1e-6)
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}
    assert np.linalg.norm(params["centers"], axis=1).min() < 0.9  # not of unit norm again


@settings(max_examples=15, deadline=None)
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_predictions_are_scikit_learns_and_ignore_the_features_scale(seed, factor):
    features, labels = clustered(seed)
    queries, _ = clustered(seed + 1)
    params = nearest_class_mean(features, labels, 4)
    mean = features.astype(np.float64).mean(0)
    oracle = NearestCentroid().fit(unit_differences(features, mean), labels)
    scores = np.asarray(logits(NearestClassMeanClassifier(4), params, queries))
    clear = np.diff(np.sort(scores, axis=1)[:, -2:])[:, 0] > 1e-4
    predicted = oracle.predict(unit_differences(queries, mean))
    np.testing.assert_array_equal(scores.argmax(1)[clear], predicted[clear])
    scaled = nearest_class_mean(np.float32(factor) * features, labels, 4)
    np.testing.assert_allclose(scaled["centers"], params["centers"], atol=1e-4)


def test_sums_do_not_lose_a_small_spread_on_a_large_offset():
    features, labels = clustered(1, offset=0.0)
    many = np.tile(features, (500, 1)) + np.float32(1000)
    params = nearest_class_mean(many, np.tile(labels, 500), 4)
    np.testing.assert_allclose(
        params["mean"], many.astype(np.float64).mean(0).astype(np.float32), rtol=1e-7
    )


def test_features_at_the_mean_count_as_zero():
    params = nearest_class_mean(np.ones((4, 3), np.float32), np.array([0, 0, 1, 1]), 2)
    np.testing.assert_array_equal(params["centers"], np.zeros((2, 3)))


def test_a_class_without_image_is_named():
    with pytest.raises(UsageError, match=r"got none of class 2"):
        nearest_class_mean(normal(0, 4, 3), np.array([0, 1, 3, 3]), 4)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3, got 4"):
        nearest_class_mean(normal(0, 5, 3), np.arange(5), 4)
