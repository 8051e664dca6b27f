import collections
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.augment.pillow_operations import MAX_AMOUNTS, OPERATIONS, UNSIGNED
from jaxlt.data.augment.policies import (
    AUTOAUGMENT_CIFAR10,
    RANDAUGMENT,
    draw_autoaugment,
    draw_color_jitter,
    draw_randaugment,
)

POSITIONS = np.arange(100_000)


def names(operations):
    return [tuple(OPERATIONS[number] for number in row) for row in operations]


def test_the_table_has_the_papers_shape():
    assert len(AUTOAUGMENT_CIFAR10) == 25
    for row in AUTOAUGMENT_CIFAR10:
        assert len(row) == 2
        for name, probability, level in row:
            assert name in OPERATIONS
            assert probability in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
            assert level in range(10)
    # Sums over the published table, which any slip of a digit would change.
    assert sum(level for row in AUTOAUGMENT_CIFAR10 for _, _, level in row) == 267
    probabilities = [probability for row in AUTOAUGMENT_CIFAR10 for _, probability, _ in row]
    assert sum(probabilities) == pytest.approx(26.5)
    used = Counter(name for row in AUTOAUGMENT_CIFAR10 for name, _, _ in row)
    assert used["equalize"] == 9
    assert used["translate_y"] == 5
    assert "shear_x" not in used


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0, (("invert", 0.1, 7), ("contrast", 0.2, 6))),
        (7, (("sharpness", 0.3, 9), ("brightness", 0.7, 9))),
        (14, (("solarize", 0.5, 2), ("invert", 0.0, 3))),
        (16, (("equalize", 0.2, 8), ("equalize", 0.6, 4))),
        (24, (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1))),
    ],
)
def test_sub_policies_are_the_published_ones(row, expected):
    assert AUTOAUGMENT_CIFAR10[row] == expected


def test_outcomes_have_the_frequencies_of_the_table():
    expected: dict[tuple[str, str], float] = collections.defaultdict(float)
    for (first, p, _), (second, q, _) in AUTOAUGMENT_CIFAR10:
        for applied in itertools.product((True, False), repeat=2):
            pair = (first if applied[0] else "identity", second if applied[1] else "identity")
            expected[pair] += (p if applied[0] else 1 - p) * (q if applied[1] else 1 - q) / 25
    operations, _ = draw_autoaugment(0, POSITIONS)
    found = Counter(names(operations))
    possible = {pair: p for pair, p in expected.items() if p > 0}
    assert set(found) <= set(possible)
    counts = np.array([found[pair] for pair in possible])
    means = len(POSITIONS) * np.array(list(possible.values()))
    degrees = len(means) - 1
    assert ((counts - means) ** 2 / means).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)


def test_autoaugment_amounts_are_the_levels_with_a_random_sign():
    operations, amounts = draw_autoaugment(0, POSITIONS)
    rotations = amounts[operations == OPERATIONS.index("rotate")]
    np.testing.assert_allclose(np.abs(rotations), 30 * 2 / 9, rtol=1e-6)
    assert abs((rotations > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(len(rotations))
    solarized = amounts[operations == OPERATIONS.index("solarize")]
    np.testing.assert_allclose(np.unique(solarized), 256 * np.array([2, 3, 5, 8]) / 9, rtol=1e-6)
    posterized = amounts[operations == OPERATIONS.index("posterize")]
    np.testing.assert_allclose(posterized, 4 * 7 / 9, rtol=1e-6)


def test_the_two_operations_have_signs_of_their_own():
    # Of all sub-policies the one that translates twice.
    operations, amounts = draw_autoaugment(0, POSITIONS)
    twice = (operations == OPERATIONS.index("translate_y")).all(axis=1)
    signs = Counter(map(tuple, np.sign(amounts[twice]).tolist()))
    assert len(signs) == 4
    assert all(
        abs(n / twice.sum() - 0.25) < 5 * np.sqrt(0.19 / twice.sum()) for n in signs.values()
    )


@pytest.mark.parametrize("num_ops", [1, 2, 3])
def test_randaugment_draws_all_operations_alike(num_ops):
    operations, _ = draw_randaugment(0, POSITIONS, num_ops, 9)
    found = Counter(names(operations))
    assert set(found) == set(itertools.product(RANDAUGMENT, repeat=num_ops))
    counts = np.array(list(found.values()))
    mean = len(POSITIONS) / 14**num_ops
    degrees = 14**num_ops - 1
    assert ((counts - mean) ** 2 / mean).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)


def test_jitter_permutes_three_operations_of_uniform_amounts():
    operations, amounts = draw_color_jitter(3, np.arange(12_000).reshape(60, 200), 0.4)
    assert operations.shape == amounts.shape == (60, 200, 3)
    found = Counter(names(operations.reshape(-1, 3)))
    assert set(found) == set(itertools.permutations(("brightness", "contrast", "color")))
    assert min(found.values()) > 1800
    assert -0.4 <= amounts.min() < -0.399
    assert 0.399 < amounts.max() <= 0.4
    assert abs(amounts.mean()) < 0.005
    assert abs(np.corrcoef(amounts.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_randaugment_has_the_papers_14_operations():
    assert set(RANDAUGMENT) == set(OPERATIONS) - {"invert"}
    assert len(RANDAUGMENT) == 14


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_amounts_grow_with_the_magnitude(magnitude):
    operations, amounts = draw_randaugment(0, POSITIONS[:5000], 2, magnitude)
    for number, name in enumerate(OPERATIONS):
        own = amounts[operations == number]
        expected = MAX_AMOUNTS.get(name, 0) * magnitude / 30
        np.testing.assert_allclose(np.abs(own), expected, rtol=1e-6)
        signed = name in MAX_AMOUNTS and name not in UNSIGNED and magnitude > 0
        assert (own < 0).any() == signed


@given(st.integers(0, 10**12), st.sampled_from([(3,), (2, 4)]))
def test_draws_are_a_function_of_seed_and_position(start, shape):
    positions = start + np.arange(np.prod(shape)).reshape(shape)
    for draw, options in ((draw_autoaugment, ()), (draw_randaugment, (3, 9))):
        together = draw(5, positions, *options)
        for place in np.ndindex(shape):
            alone = draw(5, positions[place].reshape(1), *options)
            for ours, theirs in zip(together, alone, strict=True):
                np.testing.assert_array_equal(ours[place], theirs[0])


def test_every_run_ever_started_keeps_its_draws():
    operations, _ = draw_autoaugment(3, np.arange(4))
    nothing = ("identity", "identity")
    expected = [("autocontrast", "identity"), nothing, ("sharpness", "sharpness"), nothing]
    assert names(operations) == expected
    operations, amounts = draw_randaugment(3, np.arange(2), 2, 9)
    assert names(operations) == [("translate_y", "identity"), ("autocontrast", "identity")]
    np.testing.assert_allclose(amounts, [[0.3 * 150 / 331, 0], [0, 0]], rtol=1e-6)
