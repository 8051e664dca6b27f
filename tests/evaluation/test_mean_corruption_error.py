import numpy as np
import pytest

from jaxlt.evaluation.corruptions import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
)


def random_errors(seed, names=CORRUPTIONS):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 0.9, len(SEVERITIES)) for name in names}


def test_mce_by_brute_force():
    errors, baseline = random_errors(0), random_errors(1)
    expected = []
    for name in CORRUPTIONS:
        above = below = 0.0
        for index in range(5):
            above += errors[name][index]
            below += baseline[name][index]
        expected.append(above / below)
    found = corruption_errors(errors, baseline)
    np.testing.assert_allclose(list(found.values()), expected)
    assert mean_corruption_error(found) == pytest.approx(sum(expected) / 15)


def test_a_network_is_its_own_baseline():
    errors = random_errors(2)
    assert mean_corruption_error(corruption_errors(errors, errors)) == pytest.approx(1)


def test_alexnets_mce_is_one_hundred_percent_and_its_mean_error_as_published():
    alexnet = {name: np.full(5, error) for name, error in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(corruption_errors(alexnet, ALEXNET_ERRORS)) == pytest.approx(1)
    # Table 1 of the paper, rounded there to whole percents of each corruption's error.
    rounded = [89, 89, 92, 82, 83, 79, 80, 87, 83, 82, 56, 85, 65, 72, 61]
    assert [round(100 * ALEXNET_ERRORS[name]) for name in CORRUPTIONS] == rounded


def test_without_a_baseline_errors_are_means():
    errors = {"fog": np.array([0.1, 0.2, 0.3, 0.4, 0.5]), "frost": np.full(5, 0.5)}
    found = corruption_errors(errors, None)
    assert found == pytest.approx({"fog": 0.3, "frost": 0.5})
    assert mean_corruption_error(found) == pytest.approx(0.4)


def test_validation_corruptions_do_not_count():
    errors = {"fog": np.full(5, 0.5), "spatter": np.full(5, 0.9)}
    assert mean_corruption_error(corruption_errors(errors, None)) == 0.5
    normalized = corruption_errors(errors, ALEXNET_ERRORS)
    assert np.isnan(normalized["spatter"])
    assert mean_corruption_error(normalized) == pytest.approx(0.5 / ALEXNET_ERRORS["fog"])
    assert np.isnan(mean_corruption_error({"spatter": 0.9}))
