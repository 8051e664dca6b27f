import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.sampling.long_tail import (
    long_tailed_counts,
    profile_counts,
    select_images,
)
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError
from jaxlt.recipes.data import Balanced, Data

# The published class counts of CIFAR-100-LT at imbalance factor 100.
CIFAR100_IF100 = """
    500 477 455 434 415 396 378 361 344 328 314 299 286 273 260 248 237 226 216 206 197 188 179 171
    163 156 149 142 135 129 123 118 112 107 102 98 93 89 85 81 77 74 70 67 64 61 58 56 53 51 48 46
    44 42 40 38 36 35 33 32 30 29 27 26 25 24 23 22 21 20 19 18 17 16 15 15 14 13 13 12 12 11 11 10
    10 9 9 8 8 7 7 7 6 6 6 6 5 5 5 5
"""
CIFAR10 = {
    10: (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500),
    50: (5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100),
    100: (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50),
    200: (5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25),
}


@pytest.mark.parametrize("factor", CIFAR10)
def test_cifar10_counts_are_the_published_ones(factor):
    assert profile_counts("exponential", factor, 10, 5000) == CIFAR10[factor]


def test_cifar100_counts_are_the_published_ones():
    published = [int(count) for count in CIFAR100_IF100.split()]
    assert list(profile_counts("exponential", 100, 100, 500)) == published


@pytest.mark.parametrize(
    ("profile", "num_classes", "factor", "total", "smallest"),
    [
        ("exponential", 100, 10, 19573, 50),
        ("exponential", 100, 50, 12608, 10),
        ("exponential", 100, 100, 10847, 5),
        ("exponential", 100, 200, 9502, 2),
        ("step", 10, 10, 27500, 500),
        ("step", 10, 50, 25500, 100),
        ("step", 10, 100, 25250, 50),
        ("step", 10, 200, 25125, 25),
        ("step", 100, 10, 27500, 50),
        ("step", 100, 50, 25500, 10),
        ("step", 100, 100, 25250, 5),
        ("step", 100, 200, 25100, 2),
    ],
)
def test_totals_are_the_published_ones(profile, num_classes, factor, total, smallest):
    counts = profile_counts(profile, factor, num_classes, 50000 // num_classes)
    assert (sum(counts), counts[-1]) == (total, smallest)


@given(
    st.sampled_from(["exponential", "step", "balanced"]),
    st.floats(1, 300),
    st.integers(1, 50),
    st.integers(300, 6000),
)
def test_profiles_fall_from_the_bound_by_the_factor(profile, factor, num_classes, bound):
    counts = profile_counts(profile, factor, num_classes, bound)
    assert counts[0] == bound
    assert list(counts) == sorted(counts, reverse=True)
    if profile == "balanced" or num_classes == 1:
        assert counts[-1] == bound
    else:
        assert counts[-1] == int(bound / factor)


def test_step_of_an_odd_number_of_classes_gives_the_head_the_larger_half():
    assert profile_counts("step", 10, 5, 100) == (100, 100, 100, 10, 10)


@pytest.mark.parametrize("factor", [0.99, 0, -1, float("nan"), float("inf")])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(UsageError, match="imbalance_factor must be"):
        profile_counts("exponential", factor, 10, 5000)


def test_a_tail_without_an_image_is_refused():
    assert profile_counts("exponential", 50, 10, 50)[-1] == 1
    with pytest.raises(UsageError, match=r"at most 50, .* for the tail class to have an image"):
        profile_counts("exponential", 51, 10, 50)


def test_bad_bound_and_profile_are_refused():
    with pytest.raises(UsageError, match="max_per_class must be at least 1, got 0"):
        profile_counts("step", 10, 10, 0)
    with pytest.raises(UsageError, match=r"profile must be .* got 'linear'"):
        profile_counts("linear", 10, 10, 100)  # pyright: ignore[reportArgumentType]


def test_the_smallest_class_and_the_bound_cap_the_head():
    labels = np.repeat([0, 1, 2], [400, 300, 500])
    counts = {
        bound: long_tailed_counts(
            labels, 3, profile="step", imbalance_factor=10, max_per_class=bound
        )
        for bound in (None, 1000, 200)
    }
    assert counts == {None: (300, 300, 30), 1000: (300, 300, 30), 200: (200, 200, 20)}


def test_class_order_says_which_class_is_head():
    labels = np.repeat([0, 1, 2], 100)
    counts = long_tailed_counts(
        labels, 3, profile="exponential", imbalance_factor=100, class_order=(2, 0, 1)
    )
    assert counts == (10, 1, 100)


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 2), ()])
def test_class_order_must_be_a_permutation(order):
    with pytest.raises(UsageError, match=r"permutation of 0\.\.2"):
        long_tailed_counts(
            np.repeat([0, 1, 2], 9),
            3,
            profile="balanced",
            imbalance_factor=1,
            class_order=order,
        )


def test_a_class_without_an_image_is_refused():
    with pytest.raises(UsageError, match="got none of class 1"):
        long_tailed_counts(np.array([0, 2, 2]), 3, profile="balanced", imbalance_factor=1)


def test_shuffled_selection_is_numpys_published_shuffle():
    # numpy.random.seed(0); numpy.random.permutation(10), printed in countless tutorials.
    permutation = [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    selected = select_images(np.zeros(10, np.int32), (10,), rule="shuffled", seed=0)
    assert selected.tolist() == permutation


def test_shuffled_selection_is_that_of_the_ldam_drw_family():
    labels = np.random.default_rng(5).integers(0, 4, 300)
    counts = (40, 20, 10, 5)
    # What their data set classes do: the global generator seeded once, then class by class.
    np.random.seed(3)  # noqa: NPY002
    expected = []
    for label in range(4):
        numbers = np.where(labels == label)[0]
        np.random.shuffle(numbers)  # noqa: NPY002
        expected.extend(numbers[: counts[label]])
    assert select_images(labels, counts, rule="shuffled", seed=3).tolist() == expected


def test_first_selection_takes_the_first_of_each_class():
    labels = np.array([1, 0, 1, 0, 1, 0])
    assert select_images(labels, (2, 1), rule="first", seed=9).tolist() == [1, 3, 0]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_selection_has_the_counts_asked_for(seed, counts):
    labels = np.tile([2, 0, 1], 20)
    selected = select_images(labels, counts, rule="shuffled", seed=seed)
    assert len(set(selected.tolist())) == len(selected)
    assert np.bincount(labels[selected], minlength=3).tolist() == counts
    assert (np.diff(labels[selected]) >= 0).all()


def test_bad_selections_are_refused():
    labels = np.array([0, 0, 1])
    with pytest.raises(UsageError, match="class 1 must be at most 1, its images, got 2"):
        select_images(labels, (1, 2), rule="first")
    with pytest.raises(UsageError, match="rule must be shuffled or first, got 'last'"):
        select_images(labels, (1, 1), rule="last")  # pyright: ignore[reportArgumentType]
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match=f"seed of the selection must lie in .* got {seed}"):
            select_images(labels, (1, 1), rule="shuffled", seed=seed)


def test_a_profile_that_unbalanced_data_do_not_allow_names_native_counts():
    labels = np.repeat([0, 1, 2], (400, 40, 4))
    with pytest.raises(UsageError) as caught:
        long_tailed_counts(labels, 3, profile="exponential", imbalance_factor=100.0)
    # Factor 4 keeps 4, 4 / 2 and 4 / 4 images: 7 of 444.
    assert str(caught.value) == (
        "imbalance_factor must be at most 4, the images of the head class, for the tail class to "
        "have an image, got 100.0; --data.profile native trains on all 444 images, exponential "
        "with imbalance factor 4 leaves out 437 of them, as no class keeps more than the smallest "
        "has, 4"
    )
    with pytest.raises(UsageError, match=r"got 100.0$"):
        long_tailed_counts(
            np.repeat([0, 1], (5, 5)), 2, profile="exponential", imbalance_factor=100.0
        )


def test_a_profile_that_leaves_out_most_of_unbalanced_data_is_logged(caplog):
    labels = np.repeat([0, 1], (400, 4))
    images = ArrayImages(np.zeros((404, 2, 2, 1), np.uint8), labels)
    source = Source("made", ("a", "b"), images, images, (0.0,), (1.0,))
    Data(profile=Balanced()).split(source)
    (line,) = caplog.messages
    assert line == (
        "profile balanced uses 8 of 404 training images, as no class keeps more than the smallest "
        "has, 4; --data.profile native uses all"
    )
