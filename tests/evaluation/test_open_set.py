import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.evaluation.open_set import (
    F_MEASURES,
    Answers,
    Prototypes,
    accepting_threshold,
    f_measure,
    open_set_measures,
    per_class_accuracy,
    softmax_scores,
    threshold_curve,
)

NUM_CLASSES = 4


def random_answers(seed, closed=30, opened=20):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.integers(0, NUM_CLASSES, closed), np.full(opened, -1)])
    guesses = rng.integers(0, NUM_CLASSES, closed + opened)
    right = rng.random(closed + opened) < 0.6
    # Scores on a grid, so that many of them are equal to each other and to thresholds.
    scores = rng.integers(1, 20, closed + opened) / 20 + 0.1 * (labels >= 0)
    return Answers(labels, np.where(right & (labels >= 0), labels, guesses), scores)


def brute_force(answers, threshold, definition):
    """F, closed accuracy and open accuracy, image by image, after the published definitions."""
    true_positive = false_positive = false_negative = rejected_open = 0
    for label, prediction, score in zip(
        answers.labels, answers.predictions, answers.scores, strict=True
    ):
        if score < threshold:
            prediction = -1
        if label == -1:
            false_negative += prediction != -1
            rejected_open += prediction == -1
        elif prediction == label:
            true_positive += 1
        elif definition == "oltr" or prediction != -1:
            false_positive += 1
    closed = int((answers.labels != -1).sum())
    precision = true_positive / max(true_positive + false_positive, 1)
    recall = true_positive / max(true_positive + false_negative, 1)
    f = 2 * precision * recall / (precision + recall + 1e-12)
    return f, true_positive / closed, rejected_open / (len(answers.labels) - closed)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), threshold=st.integers(0, 25).map(lambda n: n / 20))
def test_measures_are_those_of_brute_force(seed, threshold):
    answers = random_answers(seed)
    measures = open_set_measures(answers, threshold)
    for definition in F_MEASURES:
        f, accuracy, open_accuracy = brute_force(answers, threshold, definition)
        assert measures[f"f_{definition}"] == pytest.approx(f, abs=1e-9)
        assert measures["accuracy"] == pytest.approx(accuracy)
        assert measures["open_accuracy"] == pytest.approx(open_accuracy)
    pairs = [
        (c > o) + (c == o) / 2
        for c in answers.scores[answers.labels >= 0]
        for o in answers.scores[answers.labels < 0]
    ]
    assert measures["auroc"] == pytest.approx(np.mean(pairs))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_curve_is_the_measures_threshold_by_threshold(seed):
    answers = random_answers(seed)
    curve = threshold_curve(answers)
    assert curve["threshold"][0] == answers.scores.min()
    assert (np.diff(curve["threshold"]) > 0).all()
    for index, threshold in enumerate(curve["threshold"]):
        measures = open_set_measures(answers, threshold)
        for name in ("accuracy", "open_accuracy", "f_oltr", "f_balms"):
            assert curve[name][index] == pytest.approx(measures[name]), name


@given(seed=st.integers(0, 2**16), threshold=st.floats(0, 1.2))
def test_laws_of_the_two_f_measures(seed, threshold):
    answers = random_answers(seed)
    decided = answers.decided(threshold)
    oltr, balms = (f_measure(answers.labels, decided, name) for name in F_MEASURES)
    assert 0 <= oltr <= balms <= 1
    if (decided[answers.labels >= 0] != -1).all():
        assert oltr == balms


def test_f_measures_by_hand():
    labels = np.array([0, 0, 1, 1, 2, -1, -1])
    predictions = np.array([0, 1, 1, -1, -1, -1, 2])
    # TP 2, accepted open 1; wrong closed 1, rejected closed 2.
    assert f_measure(labels, predictions, "oltr") == pytest.approx(2 * 2 / (2 * 2 + 3 + 1))
    assert f_measure(labels, predictions, "balms") == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f_measure(labels, np.full(7, -1), "oltr") == 0
    assert f_measure(labels, np.full(7, -1), "balms") == 0


def test_per_class_accuracy_counts_rejected_images_as_wrong_and_open_images_not_at_all():
    labels, predictions = np.array([0, 0, 1, 3, -1]), np.array([0, -1, 1, 0, 1])
    np.testing.assert_array_equal(
        per_class_accuracy(labels, predictions, NUM_CLASSES), [0.5, 1, np.nan, 0]
    )


def test_a_score_that_equals_the_threshold_is_accepted():
    answers = Answers(np.array([0, -1]), np.array([0, 1]), np.array([0.1, 0.09]))
    np.testing.assert_array_equal(answers.decided(0.1), [0, -1])


def test_softmax_scores_are_the_largest_probabilities_and_never_overflow():
    logits = np.array([[0.0, 0, 0, 0], [1000, 0, 0, 0], [1, 2, 3, 4]], np.float32)
    expected = np.exp(4) / np.exp([1, 2, 3, 4]).sum()
    np.testing.assert_allclose(softmax_scores(logits), [0.25, 1, expected], rtol=1e-12)


def test_prototype_scores_by_brute_force():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(2, 1, (40, 6)).astype(np.float32), np.arange(40) % NUM_CLASSES
    probes = rng.normal(2, 2, (9, 6)).astype(np.float32)
    mean = features.astype(np.float64).mean(axis=0)
    units = [(f - mean) / np.linalg.norm(f - mean) for f in features.astype(np.float64)]
    expected = []
    for probe in probes:
        u = (probe - mean) / np.linalg.norm(probe - mean)
        cosines = []
        for label in range(NUM_CLASSES):
            p = np.mean([v for v, c in zip(units, labels, strict=True) if c == label], axis=0)
            cosines.append(float(u @ p / np.linalg.norm(p)))
        expected.append(max(cosines))
    scores = Prototypes(features, labels, NUM_CLASSES).scores(probes)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    # A feature that is the mean of all points nowhere.
    at_mean = Prototypes(features, labels, NUM_CLASSES).scores(mean[np.newaxis])
    assert abs(at_mean[0]) <= 1


def test_a_class_without_training_image_has_no_prototype():
    with pytest.raises(UsageError, match="got none of class 2"):
        Prototypes(np.ones((3, 2)), np.array([0, 1, 3]), NUM_CLASSES)


@given(
    scores=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    share=st.floats(0.01, 1.0),
)
def test_accepting_threshold_is_the_largest_that_accepts_the_share(scores, share):
    scores = np.array(scores, float)
    threshold = accepting_threshold(scores, share)
    assert np.mean(scores >= threshold) >= share
    assert np.mean(scores > threshold) < share
