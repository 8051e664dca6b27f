import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.evaluation import (
    ConfidenceBins,
    Evaluated,
    ShotGroups,
    evaluate,
    group_accuracy,
    group_confusion,
)

NUM_CLASSES = 4
OLTR = ShotGroups(many_above=99, few_below=21)


def _long_tailed_counts(num_classes, largest, factor):
    return np.array(
        [int(largest * (1 / factor) ** (i / (num_classes - 1))) for i in range(num_classes)]
    )


def _sizes(groups, counts):
    return tuple(int(mask.sum()) for mask in groups.assign(counts).values())


def _brute_force(logits, labels):
    confusion, losses = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64), []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        if label != -1:
            confusion[label, int(np.argmax(row))] += 1
            losses.append(np.log(np.exp(row).sum()) - row[label])
    return confusion, np.mean(losses)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(-1, NUM_CLASSES - 1), min_size=12, max_size=12).filter(
        lambda labels: max(labels) >= 0
    ),
    seed=st.integers(0, 2**16),
    batch_size=st.sampled_from([3, 4, 12]),
)
def test_evaluate_counts_what_brute_force_counts(labels, seed, batch_size):
    logits = np.random.default_rng(seed).normal(size=(12, NUM_CLASSES)).astype(np.float32)
    labels = np.array(labels)
    logits[labels == -1] = np.nan  # padding must not reach the loss
    batches = [
        (logits[start : start + batch_size], labels[start : start + batch_size])
        for start in range(0, 12, batch_size)
    ]
    evaluation = evaluate(lambda images: jnp.asarray(images), batches, NUM_CLASSES)
    confusion, loss = _brute_force(logits, labels)
    assert evaluation.confusion.dtype == np.int64
    np.testing.assert_array_equal(evaluation.confusion, confusion)
    assert evaluation.loss == pytest.approx(loss, rel=1e-5)
    assert evaluation.accuracy == pytest.approx(
        np.mean(np.argmax(logits, axis=1)[labels != -1] == labels[labels != -1])
    )


def test_accuracies_by_hand():
    bins = ConfidenceBins(np.array([11]), np.array([9.5]), np.array([8]))
    evaluation = Evaluated(np.array([[8, 2, 0], [1, 0, 0], [0, 0, 0]]), 0.0, bins)
    assert evaluation.accuracy == 8 / 11
    np.testing.assert_array_equal(evaluation.per_class, [0.8, 0.0, np.nan])
    assert evaluation.balanced_accuracy == 0.4


def test_evaluate_takes_bfloat16_logits_of_a_compiled_function():
    weights = np.eye(NUM_CLASSES, dtype=np.float32)
    logits_fn = jax.jit(lambda images: (images @ weights).astype(jnp.bfloat16))
    images = 3 * np.eye(NUM_CLASSES, dtype=np.float32)[[0, 1, 2, 0]]
    evaluation = evaluate(logits_fn, [(images, np.array([0, 1, 2, 3]))], NUM_CLASSES)
    assert evaluation.accuracy == 0.75
    assert evaluation.confusion[3, 0] == 1


@pytest.mark.parametrize("label", [NUM_CLASSES, -2])
def test_a_label_outside_the_classes_is_refused(label):
    with pytest.raises(ValueError, match="labels must lie in"):
        evaluate(jnp.asarray, [(np.zeros((2, NUM_CLASSES)), np.array([0, label]))], NUM_CLASSES)


def test_logits_of_the_wrong_width_and_empty_test_sets_are_refused():
    with pytest.raises(ValueError, match="logits must be of shape"):
        evaluate(jnp.asarray, [(np.zeros((2, 3)), np.array([0, 1]))], NUM_CLASSES)
    with pytest.raises(ValueError, match="at least one labeled image, got none"):
        evaluate(jnp.asarray, [], NUM_CLASSES)
    with pytest.raises(ValueError, match="at least one labeled image, got none"):
        evaluate(jnp.asarray, [(np.zeros((2, NUM_CLASSES)), np.full(2, -1))], NUM_CLASSES)


# Recounts (many, medium, few) of the published protocols on CIFAR-LT.
@pytest.mark.parametrize(
    ("num_classes", "largest", "factor", "groups", "sizes"),
    [
        (100, 500, 100, ShotGroups(), (35, 35, 30)),
        (100, 500, 100, OLTR, (35, 34, 31)),
        # Focal-SAM's own thresholds for each imbalance factor: few < a, medium <= b.
        (10, 5000, 10, ShotGroups(2319, 835), (4, 3, 3)),
        (10, 5000, 50, ShotGroups(1500, 200), (3, 5, 2)),
        (10, 5000, 100, ShotGroups(1000, 200), (4, 3, 3)),
        (10, 5000, 200, ShotGroups(800, 100), (4, 3, 3)),
        (100, 500, 10, ShotGroups(265, 99), (28, 42, 30)),
        (100, 500, 50, ShotGroups(100, 20), (41, 41, 18)),
        (100, 500, 200, ShotGroups(60, 10), (40, 34, 26)),
    ],
)
def test_group_sizes_match_the_published_protocols(num_classes, largest, factor, groups, sizes):
    assert _sizes(groups, _long_tailed_counts(num_classes, largest, factor)) == sizes


def test_the_two_conventions_differ_at_100_and_20_alone():
    counts = np.array([101, 100, 99, 21, 20, 19])
    assert _sizes(ShotGroups(), counts) == (1, 4, 1)
    assert _sizes(OLTR, counts) == (2, 2, 2)


@given(
    counts=st.lists(st.integers(1, 200), min_size=1),
    few_below=st.integers(1, 100),
    gap=st.integers(-1, 100),
)
def test_each_class_is_in_exactly_one_group(counts, few_below, gap):
    masks = ShotGroups(few_below + gap, few_below).assign(np.array(counts))
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), 1)


def test_overlapping_thresholds_are_the_users_mistake():
    with pytest.raises(UsageError, match=r"few_below must be at most many_above .*, got 102"):
        ShotGroups(many_above=100, few_below=102)


def test_group_accuracy_averages_classes_and_leaves_out_those_without_images():
    per_class = np.array([1.0, 0.5, np.nan, 0.25, np.nan])
    counts = np.array([5000, 101, 500, 50, 30])
    accuracies = group_accuracy(per_class, counts, ShotGroups())
    assert accuracies["many"] == 0.75
    assert accuracies["medium"] == 0.25
    assert np.isnan(accuracies["few"])


def _group_of(count):
    return "many" if count > 100 else "few" if count < 20 else "medium"


def _brute_force_group_confusion(confusion, counts):
    """Class by class and prediction by prediction, over Python integers."""
    shares = {}
    for group in ("many", "medium", "few"):
        rows = []
        for true, row in enumerate(confusion):
            if _group_of(counts[true]) != group or sum(row) == 0:
                continue
            found = dict.fromkeys(("correct", "many", "medium", "few"), 0)
            for predicted, images in enumerate(row):
                place = "correct" if predicted == true else _group_of(counts[predicted])
                found[place] += images / sum(row)
            rows.append(found)
        shares[group] = [np.mean([row[p] for row in rows]) for p in rows[0]] if rows else None
    return shares


@settings(max_examples=50, deadline=None)
@given(data=st.data(), num_classes=st.integers(1, 6))
def test_group_confusion_counts_what_brute_force_counts(data, num_classes):
    counts = data.draw(st.lists(st.integers(1, 200), min_size=num_classes, max_size=num_classes))
    row = st.lists(st.integers(0, 9), min_size=num_classes, max_size=num_classes)
    confusion = data.draw(st.lists(row, min_size=num_classes, max_size=num_classes))
    shares = group_confusion(np.array(confusion), np.array(counts), ShotGroups())
    for group, wanted in _brute_force_group_confusion(confusion, counts).items():
        assert list(shares[group]) == ["correct", "many", "medium", "few"]
        found = list(shares[group].values())
        if wanted is None:
            assert np.isnan(found).all()
        else:
            np.testing.assert_allclose(found, wanted, atol=1e-12)
            assert sum(found) == pytest.approx(1)


def test_group_confusion_agrees_with_group_accuracy():
    confusion = np.array([[8, 1, 1], [2, 3, 0], [1, 0, 1]])
    counts = np.array([500, 50, 5])
    evaluation = Evaluated(confusion, 0.0, ConfidenceBins(*np.ones((3, 1), np.int64)))
    shares = group_confusion(confusion, counts, ShotGroups())
    accuracy = group_accuracy(evaluation.per_class, counts, ShotGroups())
    assert {name: row["correct"] for name, row in shares.items()} == pytest.approx(accuracy)
    assert shares["few"] == pytest.approx({"correct": 0.5, "many": 0.5, "medium": 0, "few": 0})
