import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.models import create_model
from jaxlt.models.clip.head_init import (
    class_mean_kernel,
    classifier_params,
    text_kernel,
)


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _unit(x):
    return x / np.linalg.norm(x)


class TestTexts:
    def test_kernel_by_hand(self):
        projection, features = _normal(0, 7, 5), 3 * _normal(1, 3, 1, 5)
        kernel = text_kernel(features, projection)
        assert kernel.shape == (7, 3)
        for label in range(3):
            expected = _unit(projection @ _unit(features[label, 0]))
            np.testing.assert_allclose(kernel[:, label], expected, atol=1e-6)

    def test_of_several_templates_is_the_mean_of_unit_features(self):
        texts, projection = _normal(1, 3, 5) * [[1], [10], [100]], _normal(2, 7, 5)
        kernel = text_kernel(texts[np.newaxis], projection)
        mean = np.mean([_unit(text) for text in texts], axis=0)
        np.testing.assert_allclose(kernel[:, 0], _unit(projection @ mean), atol=1e-6)


class TestClassMeans:
    @settings(max_examples=30, deadline=None)
    @given(labels=st.permutations([0, 0, 0, 1, 2, 2]), seed=st.integers(0, 99))
    def test_by_hand(self, labels, seed):
        features, labels = _normal(seed, 6, 4).astype(np.float32), np.array(labels)
        kernel = class_mean_kernel(features, labels, 3)
        for label in range(3):
            mean = features[labels == label].mean(0)
            np.testing.assert_allclose(kernel[:, label], _unit(mean), atol=1e-5)

    def test_need_an_image_a_class(self):
        with pytest.raises(UsageError, match="got none of class 1"):
            class_mean_kernel(np.ones((2, 4)), np.array([0, 2]), 3)


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_a_head_takes_them_and_classifies_by_the_nearest_direction(classifier):
    kernel = text_kernel(np.eye(4)[:, np.newaxis], np.eye(4))
    model = create_model("mlp", 4, classifier=classifier, image_shape=(2, 2, 1))
    params = {"classifier": classifier_params(kernel, classifier)}
    features = _normal(0, 9, 4).astype(np.float32)
    logits = np.asarray(model.apply({"params": params}, features, method="logits_of"))
    norms = np.linalg.norm(features, axis=1, keepdims=True) if classifier == "cosine" else 1
    np.testing.assert_allclose(logits, features / norms, atol=1e-6)
