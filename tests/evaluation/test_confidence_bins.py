import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from jaxlt.evaluation import ConfidenceBins, evaluate
from jaxlt.evaluation.calibration import NUM_BINS, count_confidences, draw_run

NUM_CLASSES = 5


def brute_force(confidence, correct):
    """ECE, MCE and the bins' sizes, one image and one bin at a time."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    ece, gaps, sizes = 0.0, [], []
    for low, high in itertools.pairwise(edges):
        members = [i for i, value in enumerate(confidence) if low < value <= high]
        sizes.append(len(members))
        if members:
            gap = abs(
                sum(correct[i] for i in members) / len(members)
                - sum(confidence[i] for i in members) / len(members)
            )
            gaps.append(gap)
            ece += len(members) / len(confidence) * gap
    return ece, max(gaps), sizes


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    padded=st.integers(0, 5),
    batch_size=st.sampled_from([6, 24]),
)
def test_evaluate_bins_what_brute_force_bins(seed, spread, padded, batch_size):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=spread, size=(24, NUM_CLASSES)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, 24)
    real = np.arange(24) >= padded
    labels[~real], logits[~real] = -1, np.nan
    batches = [(logits[i : i + batch_size], labels[i : i + batch_size]) for i in (0, 6, 12, 18)]
    bins = evaluate(jnp.asarray, batches[:: batch_size // 6], NUM_CLASSES).calibration
    confidence = softmax(logits[real]).max(axis=1)
    ece, mce, sizes = brute_force(confidence, logits[real].argmax(axis=1) == labels[real])
    np.testing.assert_array_equal(bins.counts, sizes)
    assert bins.ece == pytest.approx(ece, abs=1e-6)
    assert bins.mce == pytest.approx(mce, abs=1e-6)


def test_curve_is_scikit_learns():
    rng = np.random.default_rng(3)
    logits = rng.normal(scale=2, size=(500, NUM_CLASSES)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, 500)
    bins = evaluate(jnp.asarray, [(logits, labels)], NUM_CLASSES).calibration
    accuracy, confidence = calibration_curve(
        logits.argmax(axis=1) == labels, softmax(logits).max(axis=1), n_bins=NUM_BINS
    )
    filled = bins.counts > 0
    np.testing.assert_allclose(bins.accuracy[filled], accuracy, atol=1e-6)
    np.testing.assert_allclose(bins.confidence[filled], confidence, atol=1e-6)
    assert np.isnan(bins.confidence[~filled]).all()


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # Equal logits of three classes: the confidence is the edge 5/15, exactly as float32 has it.
    counts = np.asarray(count_confidences(jnp.zeros((1, 3)), jnp.array([0])))[0]
    assert counts.argmax() == 4
    certain = np.asarray(count_confidences(jnp.array([[1e4, 0.0]]), jnp.array([1])))
    np.testing.assert_array_equal(certain[:, -1], [1, 1, 0])


def test_errors_by_hand():
    bins = ConfidenceBins(np.array([4, 0, 6]), np.array([1.0, 0, 5.4]), np.array([2, 0, 3]))
    assert bins.ece == pytest.approx((1.0 + 2.4) / 10)
    assert bins.mce == pytest.approx(0.4)
    np.testing.assert_allclose(bins.edges, [0, 1 / 3, 2 / 3, 1])


def test_sums_over_shards_are_those_of_the_whole_and_the_same_every_time():
    rng = np.random.default_rng(0)
    logits, labels = jnp.asarray(rng.normal(size=(64, 7))), jnp.asarray(rng.integers(0, 7, 64))
    compiled = jax.jit(count_confidences)
    whole = np.asarray(compiled(logits, labels))
    halves = compiled(logits[:32], labels[:32]) + compiled(logits[32:], labels[32:])
    np.testing.assert_allclose(np.asarray(halves), whole, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(compiled(logits, labels)), whole)


def test_picture_of_a_directory_of_any_name(tmp_path):
    recorded = {"counts": [0, 4], "confidence_sums": [0.0, 3.0], "correct": [0, 2]}
    with warnings.catch_warnings(action="error"):
        draw_run("猫 $a_b_c$", recorded, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").exists()
