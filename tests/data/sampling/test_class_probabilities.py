import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.sampling.class_samplers import (
    balanced_probabilities,
    effective_number_probabilities,
    instance_probabilities,
    progressive_probabilities,
    square_root_probabilities,
)

COUNTS = np.array([900, 0, 90, 10])
ALL = [
    instance_probabilities,
    square_root_probabilities,
    balanced_probabilities,
    effective_number_probabilities,
    lambda counts: progressive_probabilities(counts, 3, 9),
]


def test_probabilities_by_hand():
    np.testing.assert_allclose(instance_probabilities(COUNTS), [0.9, 0, 0.09, 0.01])
    roots = np.array([30, 0, 90**0.5, 10**0.5])
    np.testing.assert_allclose(square_root_probabilities(COUNTS), roots / roots.sum())
    np.testing.assert_allclose(balanced_probabilities(COUNTS), [1 / 3, 0, 1 / 3, 1 / 3])
    # beta 0.5: counts of 1 and 2 have effective numbers 1 and 1.5.
    np.testing.assert_allclose(
        effective_number_probabilities(np.array([1, 2]), 0.5), np.array([1, 4 / 3]) / (7 / 3)
    )


@pytest.mark.parametrize(
    ("epoch", "num_epochs", "balance"),
    [(0, 5, 0), (1, 5, 0.25), (4, 5, 1), (7, 5, 1), (0, 1, 1), (89, 90, 1), (0, 2, 0)],
)
def test_progressive_goes_from_instance_to_balanced(epoch, num_epochs, balance):
    expected = (1 - balance) * COUNTS / 1000 + balance * np.array([1, 0, 1, 1]) / 3
    np.testing.assert_allclose(progressive_probabilities(COUNTS, epoch, num_epochs), expected)


def test_effective_number_has_its_limits():
    for beta, limit in ((0, instance_probabilities), (1 - 1e-10, balanced_probabilities)):
        found = effective_number_probabilities(COUNTS, beta)
        np.testing.assert_allclose(found, limit(COUNTS), rtol=1e-5)


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=30).filter(any), st.sampled_from(ALL))
def test_every_distribution_sums_to_one_and_spares_empty_classes(counts, distribution):
    probabilities = distribution(np.array(counts))
    assert probabilities.sum() == pytest.approx(1)
    assert ((probabilities > 0) == (np.array(counts) > 0)).all()
