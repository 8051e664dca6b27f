"""Adversarial features against loops over rows and classes, and CC-SAM's second stage on them."""

from typing import Any

import finite_differences
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import assert_close

import jaxlt
from jaxlt import losses

COUNTS = (60, 25, 12, 4)
_rng = np.random.default_rng(0)
FEATURES = _rng.normal(size=(9, 5))
KERNEL = _rng.normal(size=(5, 4))
BIAS = _rng.normal(size=4)
# No row of class 2, and two rows of padding.
LABELS = np.array([0, 1, 0, 3, 1, 0, 3, -1, 4])
REAL = LABELS[:7]


def linear(kernel=KERNEL, bias=BIAS):
    return jaxlt.Linear(jnp.asarray(kernel), jnp.asarray(bias))


def features():
    return jnp.asarray(FEATURES)


def literal_losses(kernel, bias, z, labels):
    """Cross-entropy of each row."""
    logits = z @ kernel + bias
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels]


def literal_gradient(z, label):
    """Gradient of one row's cross-entropy in its features."""
    logits = z @ KERNEL + BIAS
    p = np.exp(logits) / np.exp(logits).sum()
    return KERNEL @ (p - np.eye(4)[label])


def literal_moves(grouping, radii):
    """What is added to each real row's features."""
    moves = np.zeros((len(REAL), 5))
    for c in range(4):
        rows = [i for i, label in enumerate(REAL) if label == c]
        of_mean = [literal_gradient(FEATURES[i], c) / len(rows) for i in rows]
        for i, g in zip(rows, of_mean, strict=True):
            whole = np.linalg.norm(np.array(of_mean)) if grouping == "class" else np.linalg.norm(g)
            moves[i] = radii[c] * g / whole
    return moves


@pytest.mark.usefixtures("x64")
class TestAdversarialFeatures:
    @pytest.mark.parametrize("radius", [0.4, (0.4, 0.1, 3.0, 0.0)])
    @pytest.mark.parametrize("grouping", ["example", "class"])
    def test_equal_brute_force(self, grouping, radius):
        moved = jaxlt.losses.adversarial_features(
            features(),
            linear(),
            losses.cross_entropy,
            jnp.asarray(LABELS),
            4,
            radius=jnp.asarray(radius),
            grouping=grouping,
        )
        radii = np.broadcast_to(radius, 4)
        np.testing.assert_allclose(moved[:7], FEATURES[:7] + literal_moves(grouping, radii))
        np.testing.assert_array_equal(moved[7:], FEATURES[7:])

    def test_cosine_classifier_and_any_loss(self):
        """The loss rises at first order by `radius * ||gradient||`."""
        classifier = jaxlt.Cosine(jnp.asarray(KERNEL))

        def loss_fn(logits, labels):
            return losses.focal(5 * logits, labels, 2.0)

        def value(z):
            return loss_fn(classifier.logits(jnp.asarray(z)), LABELS).sum()

        gradient = finite_differences.gradient(value, FEATURES)
        moved = jaxlt.losses.adversarial_features(
            features(), classifier, loss_fn, jnp.asarray(LABELS), 4, radius=0.1
        )
        length = np.linalg.norm(gradient[:7], axis=1, keepdims=True)
        np.testing.assert_allclose(moved[:7] - FEATURES[:7], 0.1 * gradient[:7] / length, 1e-6)

    @pytest.mark.parametrize("grouping", ["example", "class"])
    def test_rows_without_gradient_do_not_move(self, grouping):
        """Rows 1 and 4, which are all of class 1."""

        def loss_fn(logits, labels):
            return jnp.where(labels == 1, 3.0, losses.cross_entropy(logits, labels))

        moved = jaxlt.losses.adversarial_features(
            features(), linear(), loss_fn, jnp.asarray(LABELS), 4, radius=1.0, grouping=grouping
        )
        stayed = (moved == FEATURES).all(1)
        np.testing.assert_array_equal(stayed, np.isin(LABELS, [1, -1, 4]))
        assert np.isfinite(moved).all()

    def test_is_a_constant(self):
        def total(z, classifier):
            return jaxlt.losses.adversarial_features(
                z, classifier, losses.cross_entropy, jnp.asarray(LABELS), 4, radius=1.0
            ).sum()

        gradients = jax.grad(total, argnums=(0, 1))(features(), linear())
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))


def test_16_bit_features_stay_so():
    moved = jaxlt.losses.adversarial_features(
        jnp.asarray(FEATURES, jnp.bfloat16),
        jaxlt.Linear(jnp.asarray(KERNEL, jnp.bfloat16), jnp.asarray(BIAS, jnp.bfloat16)),
        losses.cross_entropy,
        jnp.asarray(LABELS),
        4,
        radius=0.5,
    )
    assert moved.dtype == jnp.bfloat16
    expected = FEATURES[:7] + literal_moves("example", [0.5] * 4)
    np.testing.assert_allclose(moved[:7].astype(jnp.float32), expected, rtol=0, atol=0.05)


def stage_two(classifier, **options):
    arguments: dict[str, Any] = {"ratio": 0.3, "radius": 0.8} | options
    return jaxlt.losses.adversarial_losses(
        features(), classifier, losses.cross_entropy, jnp.asarray(LABELS), 4, **arguments
    )


STAGES = {
    "paper": ("example", None),
    "paper's move, weighted": ("example", np.array([0.2, 0.7, 1.1, 1.9])),
    "released": ("class", np.log(max(COUNTS) / np.array(COUNTS) + 0.01) / 2),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stage", STAGES)
class TestAdversarialLosses:
    def arguments(self, stage):
        grouping, weights = STAGES[stage]
        return {
            "grouping": grouping,
            "class_weights": None if weights is None else jnp.asarray(weights),
        }

    def moved(self, stage):
        grouping, weights = STAGES[stage]
        weights = np.ones(4) if weights is None else weights
        return FEATURES[:7] + literal_moves(grouping, 0.8 * weights), weights[REAL]

    def test_mean_is_the_literal_reading(self, stage):
        """Equations 12-14, and the released `a * L_A + (1 - a) * mean CE`."""
        moved, weights = self.moved(stage)
        adversarial = (weights * literal_losses(KERNEL, BIAS, moved, REAL)).mean()
        clean = literal_losses(KERNEL, BIAS, FEATURES[:7], REAL).mean()
        found = stage_two(linear(), **self.arguments(stage))
        np.testing.assert_allclose(found[:7].mean(), 0.3 * adversarial + 0.7 * clean, rtol=1e-12)
        np.testing.assert_array_equal(found[7:], 0)

    def test_gradient_is_that_with_the_adversarial_features_frozen(self, stage):
        moved, weights = self.moved(stage)

        def frozen(kernel, bias):
            clean = literal_losses(kernel, bias, FEATURES[:7], REAL)
            return (0.7 * clean + 0.3 * weights * literal_losses(kernel, bias, moved, REAL)).sum()

        gradient = jax.grad(lambda h: stage_two(h, **self.arguments(stage)).sum())(linear())
        kernel = finite_differences.gradient(lambda k: frozen(k, BIAS), KERNEL)
        bias = finite_differences.gradient(lambda b: frozen(KERNEL, b), BIAS)
        assert_close(gradient, linear(kernel, bias), 1e-9)

    @pytest.mark.parametrize("ratio", [0.0, 1.0])
    def test_ratio_runs_from_clean_to_adversarial(self, stage, ratio):
        moved, weights = self.moved(stage)
        found = stage_two(linear(), **self.arguments(stage) | {"ratio": ratio})[:7]
        ends = {
            0.0: literal_losses(KERNEL, BIAS, FEATURES[:7], REAL),
            1.0: weights * literal_losses(KERNEL, BIAS, moved, REAL),
        }
        np.testing.assert_allclose(found, ends[ratio], rtol=1e-12)

    def test_no_gradient_reaches_the_features(self, stage):
        def total(z):
            return jaxlt.losses.adversarial_losses(
                z,
                linear(),
                losses.cross_entropy,
                jnp.asarray(LABELS),
                4,
                ratio=0.5,
                radius=0.1,
                **self.arguments(stage),
            ).sum()

        assert (jax.grad(total)(features()) == 0).all()


class TestReleasedClassWeights:
    @pytest.mark.parametrize(
        ("imbalance", "largest", "expected"), [(100, 5000, 2.30), (200, 5000, 2.65)]
    )
    def test_published_range(self, imbalance, largest, expected):
        weights = jaxlt.losses.released_class_weights((largest, largest // imbalance))
        np.testing.assert_allclose(weights, [0.005, expected], atol=5e-3)

    def test_divisor(self):
        weights = jaxlt.losses.released_class_weights(COUNTS, divisor=1.0)
        np.testing.assert_allclose(weights, np.log(60 / np.array(COUNTS) + 0.01), rtol=1e-5)
        with pytest.raises(ValueError, match=r"^divisor must be positive and finite, got 0"):
            jaxlt.losses.released_class_weights(COUNTS, divisor=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grouping": "batch"}, "grouping must be one of example, class, got 'batch'"),
        ({"radius": np.ones(3)}, r"radius must have shape \(\) or \(4,\), got \(3,\)"),
        (
            {"class_weights": np.ones(5)},
            r"class_weights must have shape \(\) or \(4,\), got \(5,\)",
        ),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        stage_two(linear(), **options)


@pytest.mark.usefixtures("x64")
def test_ratio_of_another_type():
    features, classifier = jnp.ones((2, 3)), jaxlt.Linear(jnp.eye(3))
    how = {"labels": jnp.array([0, 1]), "num_classes": 3, "radius": 0.1}
    one, other = (
        jaxlt.adversarial_losses(features, classifier, losses.cross_entropy, ratio=ratio, **how)
        for ratio in (0.5, jnp.float32(0.5))
    )
    np.testing.assert_array_equal(one, other)
