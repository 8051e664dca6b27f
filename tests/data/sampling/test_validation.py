"""Which training images are held out, and what is said where they cannot be."""

import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data import Split, held_out_images, load_source, validation_images
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError
from jaxlt.recipes.data import Balanced, Data, Exponential, Native

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def source_of(counts, seed=0):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    images = ArrayImages(np.zeros((len(labels), 2, 2, 1), np.uint8), labels)
    empty = ArrayImages(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, int))
    names = tuple(f"class {label}" for label in range(len(counts)))
    return Source("made", names, images, empty, (0.0,), (1.0,))


@given(COUNTS, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_a_share_of_each_class_is_held_out(counts, share, seed):
    labels = source_of(counts, seed % 100).train.labels
    if max(counts) == 1:
        with pytest.raises(UsageError, match="no class has two training images"):
            held_out_images(labels, share, len(counts), seed=seed)
        return
    chosen = held_out_images(labels, share, len(counts), seed=seed)
    assert (np.diff(chosen) > 0).all()
    for images, found in zip(
        counts, np.bincount(labels[chosen], minlength=len(counts)), strict=True
    ):
        assert found < images
        assert found == 0 if images == 1 else found >= 1
        # The nearest number that leaves at least one image on either side.
        assert abs(found - np.clip(share * images, 1, max(images - 1, 1))) <= 0.5 or images == 1


@given(COUNTS, COUNTS, st.floats(0.05, 0.9))
def test_other_classes_change_nothing_of_a_class(counts, others, share):
    """A class that is added between two others leaves the validation part of these as it was."""
    labels = np.repeat(np.arange(len(counts)), counts)
    more = np.concatenate([np.repeat(np.arange(len(others)), others), labels + len(others)])
    if max(counts) == 1:
        return
    alone = held_out_images(labels, share, len(counts))
    beside = held_out_images(more, share, len(counts) + len(others)) - sum(others)
    assert beside[beside >= 0].tolist() == alone.tolist()


def test_which_images_are_held_out_is_a_function_of_the_seed():
    labels = np.zeros(100, int)
    first, again, other = (held_out_images(labels, 0.2, 1, seed=seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    # Those that NumPy's legacy generator, which never changes, shuffles to the front.
    shuffled = np.random.RandomState(0).permutation(100)
    assert first.tolist() == sorted(shuffled[:20].tolist())


@pytest.mark.parametrize("profile", [Native(), Balanced(), Exponential(imbalance_factor=3.0)])
def test_what_is_held_out_is_never_trained_on(profile):
    source = source_of([30, 20, 10, 5])
    data = Data(profile=profile, validation=0.2)
    split = data.split(source)
    held_out = data.validation_images(source, split)
    labels = source.train.labels
    assert np.bincount(labels[held_out]).tolist() == [6, 4, 2, 1]
    assert not set(held_out.tolist()) & set(split.indices.tolist())
    assert np.bincount(labels[split.indices]).tolist() == list(split.class_counts)
    if profile == Native():
        assert split.class_counts == (24, 16, 8, 4)
        assert split.imbalance_factor == 6.0
    # Its numbers are those of the whole source, so that its file fits that.
    assert split.num_images == 65


def test_a_class_of_one_image_is_named(caplog):
    with caplog.at_level(logging.INFO):
        split = Data(profile=Native(), validation=0.2).split(source_of([10, 1, 5, 1]))
    assert split.class_counts == (8, 1, 4, 1)
    (line,) = caplog.messages
    assert line == (
        "validation 0.2: 3 of 17 training images are held out and evaluated; none of 2 classes of "
        "one image: class 1, class 3"
    )


def test_a_split_file_must_leave_the_validation_part_alone(tmp_path):
    source, file = source_of([30, 20]), tmp_path / "split.json"
    data = Data(profile=Native(), validation=0.2, split_file=str(file))
    data.split(source).write(file)
    assert data.split(source).class_counts == (24, 16)
    data.replace(validation=0.0).split(source)
    wrong = data.replace(validation=0.5)
    with pytest.raises(UsageError, match=r"split file .* no image that data.validation 0.5 holds"):
        wrong.split(source)
    file.unlink()
    data.replace(validation=0.0).split(source).write(file)
    with pytest.raises(UsageError, match=r"got 10 of 10: .* --data.validation 0"):
        data.split(source)


def test_a_split_with_a_validation_part_comes_back(tmp_path):
    source = load_source("digits")
    split = Data(validation=0.1).split(source)
    split.write(tmp_path / "split.json")
    again = Split.read(tmp_path / "split.json", source)
    assert again.indices.tolist() == split.indices.tolist()
    fields = (dataclasses.asdict(one) | {"indices": 0} for one in (split, again))
    assert next(fields) == next(fields)


def test_what_is_evaluated():
    source = source_of([30, 20])
    val = ArrayImages(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, int))
    whole = dataclasses.replace(source, test=source.train, val=val)
    data = Data(profile=Native())
    split = data.split(source)
    assert data.evaluated(whole, split, "test") == (whole.test, None)
    assert data.evaluated(whole, split, "val") == (val, None)
    images, numbers = data.replace(validation=0.2).evaluated(whole, split, "test")
    assert images is whole.train
    assert len(numbers) == 10
    with pytest.raises(UsageError, match=r"have test images, got made .*--data.validation 0.2"):
        data.evaluated(source, split, "test")
    with pytest.raises(UsageError, match=r"evaluation.images must be test, got val: made has no"):
        data.evaluated(source, split, "val")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be(share):
    with pytest.raises(UsageError, match=r"validation must be (in \[0, 1\)|finite), got"):
        Data(validation=share)
    with pytest.raises(UsageError, match="validation must be in"):
        held_out_images(np.zeros(3, int), share, 1)


def test_one_of_two_ways_to_hold_out():
    with pytest.raises(UsageError, match="validation must be 0 where validation_per_class is not"):
        Data(validation=0.2, validation_per_class=1)


@given(st.lists(st.integers(0, 2), min_size=20, max_size=60), st.integers(0, 3), st.randoms())
def test_validation_images_are_the_last_of_each_class_outside_the_split(labels, per_class, random):
    labels = np.array([0, 1, 2] * 3 + labels)
    indices = np.array(random.sample(range(9, len(labels)), 5))
    chosen = validation_images(labels, indices, per_class, 3).tolist()
    outside = [i for i in range(len(labels)) if i not in indices]
    by_class = [[i for i in outside if labels[i] == c] for c in range(3)]
    assert chosen == [i for images in by_class for i in images[len(images) - per_class :]]


def test_too_few_images_outside_the_split_are_named():
    labels = np.repeat([0, 1, 2], 4)
    indices = np.array([0, 4, 5, 6, 8])
    assert validation_images(labels, indices, 1, 3).tolist() == [3, 7, 11]
    with pytest.raises(UsageError) as caught:
        validation_images(labels, indices, 2, 3)
    assert str(caught.value) == (
        "validation_per_class must be at most 1, the images of class 1 outside the split, got 2: "
        "lower --data.profile.max-per-class, or hold out a share of each class by "
        "--data.validation 0.2"
    )
    with pytest.raises(UsageError) as caught:
        validation_images(labels, np.arange(len(labels)), 1, 3)
    # Native counts have no such bound to lower.
    assert str(caught.value) == (
        "validation_per_class must be at most 0, the images of class 0 outside the split, got 1: "
        "hold out a share of each class by --data.validation 0.2"
    )
    with pytest.raises(UsageError, match="validation_per_class must be at least 0, got -1"):
        validation_images(labels, indices, -1, 3)
