from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.models import (
    MLP,
    CosineClassifier,
    LinearClassifier,
    NearestClassMeanClassifier,
    ScaledLinearClassifier,
)


def _init(head, x) -> Any:
    return head.init(jax.random.key(0), x)["params"]


def _logits(head, params, x) -> Any:
    return head.apply({"params": params}, x)


def _features(seed, rows=5, width=7):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def test_linear_classifier_starts_as_the_field_starts_it():
    params = _init(LinearClassifier(4000), jnp.zeros((1, 64)))
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    assert kernel.std() == pytest.approx(np.sqrt(2 / 64), rel=0.01)
    # A truncated normal would have nothing beyond 2.3 standard deviations.
    assert np.mean(np.abs(kernel) > 3 * kernel.std()) == pytest.approx(0.0027, rel=0.2)
    assert np.abs(bias).max() <= 1 / 8
    assert bias.std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.05)


def test_linear_classifier_is_affine():
    x = _features(0)
    params = _init(LinearClassifier(3), x)
    expected = x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(_logits(LinearClassifier(3), params, x), expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-4, 1e4))
def test_cosine_logits_are_cosines_and_ignore_every_norm(seed, scale):
    x = _features(seed)
    kernel = 5 * _features(seed + 1, rows=7, width=3)
    logits = _logits(CosineClassifier(3), {"kernel": kernel}, scale * x)
    for i, j in np.ndindex(5, 3):
        u, v = x[i].astype(np.float64), kernel[:, j].astype(np.float64)
        cosine = u @ v / np.sqrt((u @ u) * (v @ v))
        assert logits[i, j] == pytest.approx(cosine, abs=1e-5)


def test_cosine_classifier_has_unit_columns_and_no_bias_at_the_start():
    params = _init(CosineClassifier(30), jnp.zeros((1, 64)))
    assert set(params) == {"kernel"}
    np.testing.assert_allclose(np.linalg.norm(params["kernel"], axis=0), 1, atol=1e-6)
    assert np.min(params["kernel"]) < 0 < np.max(params["kernel"])


def test_zero_features_give_zero_cosines_and_zero_gradients():
    kernel = jnp.asarray(_features(2, rows=7, width=3))

    def logits(kernel, x):
        return _logits(CosineClassifier(3), {"kernel": kernel}, x)

    x = jnp.zeros((2, 7)).at[1].set(1.0)
    assert not np.any(logits(kernel, x)[0])
    by_kernel, by_x = jax.grad(lambda k, x: logits(k, x).sum(), argnums=(0, 1))(kernel, x)
    assert np.isfinite(by_kernel).all()
    assert np.isfinite(by_x).all()
    assert not np.any(by_x[0])
    assert np.any(by_x[1])


def test_unknown_classifier_is_the_users_mistake():
    with pytest.raises(
        UsageError, match=r"classifier must be one of linear, cosine.*, got 'cosin'"
    ):
        MLP(num_classes=3, classifier="cosin")


def test_scaled_linear_classifier_starts_as_a_linear_one_and_scales_each_logit():
    x, head = _features(3), ScaledLinearClassifier(3)
    params = _init(head, x)
    linear = _init(LinearClassifier(3), x)
    np.testing.assert_array_equal(params["scale"], np.ones(3))
    assert params["kernel"].shape == linear["kernel"].shape
    np.testing.assert_array_equal(
        _logits(head, params, x),
        _logits(LinearClassifier(3), {name: params[name] for name in linear}, x),
    )
    params["scale"] = jnp.array([0.5, 2, -1])
    affine = x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(_logits(head, params, x), [0.5, 2, -1] * affine, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-4, 1e4))
def test_nearest_class_mean_has_negative_squared_distances_as_logits(seed, scale):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=7).astype(np.float32)
    centers = rng.normal(size=(3, 7)).astype(np.float32)
    differences = rng.normal(size=(5, 7))
    x = (mean + scale * differences).astype(np.float32)
    logits = _logits(NearestClassMeanClassifier(3), {"mean": mean, "centers": centers}, x)
    for i, j in np.ndindex(5, 3):
        unit = x[i].astype(np.float64) - mean
        unit = unit / np.sqrt(unit @ unit)
        assert logits[i, j] == pytest.approx(-((unit - centers[j]) ** 2).sum(), abs=2e-5)


def test_nearest_class_mean_is_nowhere_before_it_is_computed():
    params = _init(NearestClassMeanClassifier(3), jnp.zeros((1, 7)))
    assert {name: leaf.shape for name, leaf in params.items()} == {"mean": (7,), "centers": (3, 7)}
    assert not any(np.any(leaf) for leaf in params.values())
    np.testing.assert_array_equal(
        _logits(NearestClassMeanClassifier(3), params, np.zeros((2, 7))), np.zeros((2, 3))
    )


@pytest.mark.parametrize("name", ["linear", "cosine", "scaled_linear", "nearest_class_mean"])
def test_logits_of_features_are_those_of_the_network(name):
    images = np.random.default_rng(0).normal(size=(4, 6, 4, 1)).astype(np.float32)
    model = MLP(num_classes=3, hidden=8, classifier=name)
    variables = model.init(jax.random.key(0), images, train=False)
    if name == "nearest_class_mean":
        variables["params"]["classifier"]["centers"] = jnp.asarray(_features(1, 3, 8))
    features = model.apply(variables, images, train=False, method="features")
    logits = np.asarray(model.apply(variables, features, method="logits_of"))
    assert logits.shape == (4, 3)
    assert np.ptp(logits) > 0
    np.testing.assert_array_equal(logits, model.apply(variables, images, train=False))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_linear_and_cosine_heads_are_functions_of_their_parameters(name):
    model = MLP(num_classes=3, classifier=name)
    x = _features(0)
    params = {"classifier": _init(model.classifier, x)}
    assert model.has_factored_classifier
    np.testing.assert_allclose(
        model.classifier_of(params).logits(x),
        _logits(model.classifier, params["classifier"], x),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", ["scaled_linear", "nearest_class_mean"])
def test_other_heads_have_no_closed_form(name):
    model = MLP(num_classes=3, classifier=name)
    assert not model.has_factored_classifier
    with pytest.raises(ValueError, match="must be LinearClassifier or CosineClassifier"):
        model.classifier_of({"classifier": _init(model.classifier, _features(0))})
