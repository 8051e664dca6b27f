"""Classifiers, and their gradients class by class against JAX's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_problems import assert_close, quick

from jaxlt import Cosine, Linear
from jaxlt.batch.class_gradients import class_gradients

IMAGES, FEATURES, CLASSES = 9, 4, 3
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(FEATURES, CLASSES))
CLASSIFIERS = {
    "linear": Linear(KERNEL, RNG.normal(size=CLASSES)),
    "without bias": Linear(KERNEL),
    "cosine": Cosine(KERNEL),
    "scaled cosine": Cosine(KERNEL, 25.0),
}

classifiers = st.sampled_from(list(CLASSIFIERS))
matrices = {
    "features": arrays(np.float64, (IMAGES, FEATURES), elements=st.floats(-2, 2)),
    "residuals": arrays(np.float64, (IMAGES, CLASSES), elements=st.floats(-1, 1)),
    "labels": arrays(np.int64, IMAGES, elements=st.integers(0, 4)),
}


def class_gradient(classifier, features, residuals, members):
    """Gradient of the class's loss, linear in the logits, in the classifier's leaves."""
    return jax.grad(lambda c: ((members * 1.0)[:, None] * residuals * c.logits(features)).sum())(
        classifier
    )


def moved(classifier, gradient, factors):
    leaves, tree = jax.tree.flatten(classifier)
    along = jax.tree.leaves(gradient)
    return tree.unflatten([w + f * d for w, f, d in zip(leaves, factors, along, strict=True)])


@pytest.mark.usefixtures("x64")
class TestClassGradients:
    @quick
    @given(name=classifiers, **matrices)
    def test_norms(self, name, features, residuals, labels):
        classifier = jax.tree.map(jnp.asarray, CLASSIFIERS[name])
        residuals, same = map(jnp.asarray, (residuals, (labels[:, None] == labels) * 1.0))
        shares = class_gradients(classifier, jnp.asarray(features), residuals, same).squared_norms
        for label in set(labels.tolist()):
            gradient = class_gradient(classifier, features, residuals, labels == label)
            expected = [float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient)]
            found = shares[labels == label].sum(0)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)

    @quick
    @given(
        name=classifiers, **matrices, factors=arrays(np.float64, (5, 2), elements=st.floats(-1, 1))
    )
    def test_perturbed_logits_and_their_gradients(self, name, features, residuals, labels, factors):
        classifier = jax.tree.map(jnp.asarray, CLASSIFIERS[name])
        factors = jnp.asarray(factors[:, : len(jax.tree.leaves(classifier))])
        residuals, same = map(jnp.asarray, (residuals, (labels[:, None] == labels) * 1.0))
        gradients = class_gradients(classifier, jnp.asarray(features), residuals, same)
        eps = [class_gradient(classifier, features, residuals, labels == c) for c in range(5)]

        def closed(classifier, features):
            return gradients.perturbed_logits(classifier, features, factors[labels])

        def explicit(classifier, features):
            rows = [
                moved(classifier, eps[label], factors[label]).logits(row[None])[0]
                for row, label in zip(features, labels, strict=True)
            ]
            return jnp.stack(rows)

        arguments = classifier, jnp.asarray(features)
        (ours, pullback), (theirs, expected) = (jax.vjp(f, *arguments) for f in (closed, explicit))
        assert_close(ours, theirs, 1e-10)
        cotangent = RNG.normal(size=(IMAGES, CLASSES))
        assert_close(pullback(cotangent), expected(cotangent), 1e-8)


@pytest.mark.usefixtures("x64")
def test_linear_logits():
    features = RNG.normal(size=(2, FEATURES))
    linear = CLASSIFIERS["linear"]
    np.testing.assert_allclose(linear.logits(features), features @ KERNEL + linear.bias)


def test_cosine_logits():
    features = RNG.normal(size=(2, FEATURES)).astype(np.float32)
    norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(KERNEL, axis=0)
    for scale in (1.0, 25.0):
        logits = Cosine(jnp.asarray(KERNEL), scale).logits(jnp.asarray(features))
        np.testing.assert_allclose(logits, scale * features @ KERNEL / norms, rtol=1e-5, atol=1e-6)


def test_linear_without_bias():
    features = RNG.normal(size=(2, FEATURES)).astype(np.float32)
    kernel = KERNEL.astype(np.float32)
    np.testing.assert_allclose(Linear(kernel).logits(features), features @ kernel, rtol=1e-6)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("types", [*itertools.permutations(["bfloat16", "float32", "float64"], 2)])
@pytest.mark.usefixtures("x64")
def test_logits_have_the_wider_type_of_features_and_leaves(name, types):
    classifier = jax.tree.map(lambda leaf: jnp.asarray(leaf, types[0]), CLASSIFIERS[name])
    features = jnp.ones((2, FEATURES), types[1])
    logits = classifier.logits(features)
    assert logits.dtype == max(types, key=["bfloat16", "float32", "float64"].index)
    exact = jax.tree.map(lambda leaf: leaf.astype(float), classifier).logits(features)
    np.testing.assert_allclose(logits, exact, rtol=0.02, atol=0.2)


@pytest.mark.parametrize(
    ("dtype", "size"), [("float16", 300), ("float16", 6e4), ("float32", 1e20), ("float32", 1e37)]
)
def test_cosine_of_vectors_whose_squares_are_out_of_range(dtype, size):
    def logits(size):
        features, kernel = jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.6], [0.0, 0.8]])
        large = [(x / 4 * size).astype(dtype) for x in (features, kernel)]
        return jax.vjp(lambda x, w: Cosine(w).logits(x), *large)

    (found, pullback), (expected, plain_pullback) = logits(size), logits(4.0)
    np.testing.assert_allclose(found, [[0.6, 1.0]], rtol=2e-3)
    assert found.dtype == dtype
    seed = jnp.array([[1.0, 0.5]], dtype)
    gradients, plain = pullback(seed), plain_pullback(seed)
    tolerance = 1e-5 if dtype == "float32" else 0.1
    for gradient, expected in zip(gradients, plain, strict=True):
        scaled = np.asarray(gradient, np.float64) * (size / 4)
        np.testing.assert_allclose(scaled, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("zero", ["features", "column"])
def test_cosine_of_a_zero_vector_is_zero_with_gradient_zero(zero):
    features, kernel = np.ones((2, FEATURES), np.float32), KERNEL.astype(np.float32)
    if zero == "features":
        features[0] = 0
    else:
        kernel[:, 0] = 0
    both = jnp.asarray(features), jnp.asarray(kernel)
    logits, pullback = jax.vjp(lambda z, w: Cosine(w).logits(z), *both)
    gradient = pullback(jnp.ones_like(logits))
    assert not (logits[0] if zero == "features" else logits[:, 0]).any()
    assert not (gradient[0][0] if zero == "features" else gradient[1][:, 0]).any()
    assert all(jnp.isfinite(leaf).all() for leaf in gradient)
