from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.models import MLP, CosineClassifier, LinearClassifier


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
    with pytest.raises(UsageError, match=r"classifier was 'cosin', must be one of linear, cosine"):
        MLP(num_classes=3, classifier="cosin")
