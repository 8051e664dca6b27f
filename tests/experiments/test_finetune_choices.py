"""What `finetune` chooses: laws of the rule, the limits of shots, the largest batch that fits."""

import io
import math

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.finetune.choices import Needs, chosen, shot_limits
from experiments.finetune.facts import Facts, facts_of
from experiments.finetune.memory import largest_batch, with_fitting_batch
from experiments.finetune.recommended import (
    backbone_of,
    baseline_of,
    left_of,
    recommend,
    search_of,
)
from experiments.tuning import Search
from jaxlt.recipes import Digits, FocalSAM, HuggingFace
from jaxlt.recipes.named import named, vary
from jaxlt.training.loop import together

BACKBONES = st.none() | st.builds(
    lambda patch, patches: Needs(patch * patches, patch),
    st.sampled_from([1, 8, 14, 16, 32]),
    st.integers(3, 24),
)
IMAGES, CLASSES, SIDES = st.integers(1, 10**7), st.integers(1, 10**4), st.integers(1, 10**4)


@given(IMAGES, CLASSES, SIDES, BACKBONES, st.booleans())
def test_choices_stay_within_what_can_be(images, classes, side, backbone, on_accelerator):
    got = chosen(images, classes, side, backbone, on_accelerator=on_accelerator)
    assert 1 <= got.batch_size <= images
    assert math.log2(got.batch_size).is_integer()
    assert got.batch_size <= (512 if on_accelerator else 128)
    multiple = 4 if backbone is None else backbone.multiple_of
    assert got.image_size % multiple == 0
    assert got.image_size >= min(8, 3 * multiple)
    assert 0 < got.lr <= 0.1
    assert len(got.reasons) == 4
    # A step more an epoch, where the last batch is not full.
    steps = got.epochs * math.ceil(images / got.batch_size)
    assert steps >= got.epochs
    fewest, most, seen = (10, 80, 60_000) if backbone is None else (4, 30, 20_000)
    assert fewest <= got.epochs <= most
    assert got.epochs * images <= max(seen + images / 2, fewest * images)


@given(st.lists(IMAGES, min_size=2, max_size=2), CLASSES, SIDES, BACKBONES)
def test_more_images_mean_no_more_epochs_and_no_smaller_batches(images, classes, side, backbone):
    fewer, more = (chosen(one, classes, side, backbone) for one in sorted(images))
    assert fewer.epochs >= more.epochs
    assert fewer.batch_size <= more.batch_size
    assert fewer.lr <= more.lr


@given(IMAGES, CLASSES, st.lists(SIDES, min_size=2, max_size=2), BACKBONES)
def test_larger_images_are_not_made_smaller(images, classes, sides, backbone):
    smaller, larger = (chosen(images, classes, one, backbone) for one in sorted(sides))
    assert smaller.image_size <= larger.image_size


@given(IMAGES, SIDES, BACKBONES)
def test_a_backbone_gets_no_more_pixels_than_its_own_and_a_cpu_fewer(images, side, backbone):
    on_cpu, on_gpu = (
        chosen(images, 2, side, backbone, on_accelerator=one) for one in (False, True)
    )
    assert on_cpu.image_size <= on_gpu.image_size
    if backbone is not None:
        assert on_gpu.image_size <= max(backbone.image_size, 3 * backbone.multiple_of)
        # Enlarged at most 1.5 times, but for three patches.
        most = max(1.5 * side + backbone.multiple_of, 3 * backbone.multiple_of)
        assert on_gpu.image_size <= most


@pytest.mark.parametrize(
    ("images", "side", "backbone", "expected"),
    [
        # By hand: 2478 // 8 = 309 images, below 512; 60,000 / 2478 = 24.2 epochs.
        (2478, 28, None, (28, 128, 24, 0.02)),
        # 125 // 8 = 15, below 16; 0.02 * sqrt(8 / 128) = 0.005.
        (125, 300, None, (64, 8, 80, 0.005)),
        # 1.5 * 28 = 42 pixels are three patches; 20,000 / 2478 = 8.07 epochs.
        (2478, 28, Needs(224, 14), (42, 128, 8, 0.01)),
        # No more than 112 pixels on a CPU, seven patches of 16.
        (2478, 500, Needs(224, 16), (112, 128, 8, 0.01)),
    ],
)
def test_the_rule_by_hand(images, side, backbone, expected):
    assert chosen(images, 10, side, backbone)[:4] == expected


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=60))
def test_shot_limits_part_any_classes(counts):
    limits = shot_limits(counts)
    assert limits.few_below <= limits.many_above + 1
    many = sum(count > limits.many_above for count in counts)
    few = sum(count < limits.few_below for count in counts)
    if max(counts) > 100:
        assert (limits.many_above, limits.few_below) == (100, 20)
    else:
        assert many <= len(counts) // 3
        assert few <= len(counts) // 3


def test_shot_limits_say_what_was_taken():
    counts = [40, 36, 33, 30, 26, 20, 16, 12, 10, 8, 6, 4]
    limits = shot_limits(counts)
    assert sum(count > limits.many_above for count in counts) == 4
    assert sum(count < limits.few_below for count in counts) == 4
    assert "no class has more than 100 training images" in limits.reason
    assert f"above {limits.many_above}" in limits.reason


@given(st.integers(1, 10**4), st.floats(0.01, 0.99))
def test_what_is_left_of_a_class_is_what_a_split_has(count, share):
    from jaxlt.data import held_out_images

    labels = np.repeat([0, 1], [count, 5])
    held_out = held_out_images(labels, share, 2)
    assert left_of(count, share) == count - int((labels[held_out] == 0).sum())


@pytest.mark.parametrize(("num_test", "expected"), [(0, 5), (500, 5), (17_000, 7), (10**6, 24)])
def test_evaluations_pass_over_no_more_images_than_training(num_test, expected):
    # 2,500 images are trained on for 24 epochs, a fifth of which is 5.
    facts = Facts(("a", "b"), (2000, 500), 28, 3, True, 0, num_test, known_by={})
    recipe, _ = recommend(Digits(), facts, backbone_of(None), 0.0)
    assert (recipe.first.epochs, recipe.evaluation.epochs) == (24, expected)
    shorter, _ = recommend(Digits(), facts, backbone_of(None), 0.0, epochs=5)
    assert shorter.evaluation.epochs == min(5, max(1, expected if num_test > 500 else 1))


def test_sides_are_those_of_the_images_wherever_they_are_kept(tmp_path):
    columns = {"image": [], "label": []}
    for number, size in enumerate(((20, 31), (24, 24), (90, 28), (30, 40))):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, "PNG")
        columns["image"].append(file.getvalue())
        columns["label"].append(number % 2)
    # No image: what is said of the others is not changed.
    columns["image"].append(b"no image")
    columns["label"].append(1)
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    # The median of 20, 24, 28 and 30.
    assert facts_of(HuggingFace(dataset=str(tmp_path / "saved"))).side == 26


def test_both_rows_of_a_comparison_have_as_many_trials():
    recipe = vary(named("focal_sam_digits"), method=FocalSAM(), lr=0.09)
    plain = baseline_of(recipe)
    radii = search_of("focal_sam", recipe, (0.01, 0.05, 0.2))
    rates = search_of("sgd", plain, (0.01, 0.05, 0.2))
    assert radii == Search("method.rho", ("0.01", "0.05", "0.2"), "focal_sam")
    assert rates == Search("optimizer.lr", ("0.03", "0.09", "0.27"), "sgd")
    assert search_of("sgd", plain, (0.1,)).values == ("0.09",)


@given(st.integers(0, 9), st.floats(1, 1e6))
def test_the_largest_batch_fits_and_twice_as_many_do_not(power, limit):
    most = 2**power
    size = largest_batch(most, lambda images: 1000.0 * images, limit)
    assert size in {2**one for one in range(power + 1)}
    assert size == 1 or 1000 * size <= limit
    assert size == most or 2000 * size > limit


def test_a_batch_that_does_not_fit_is_halved_with_its_learning_rate(monkeypatch):
    recipe = vary(named("focal_sam_digits"), batch_size=64, lr=0.04)
    sizes = []

    def needed(job):
        sizes.append(job.placed[0].steps.pipeline.labels(0, 1).size)
        return 1000 * sizes[-1]

    monkeypatch.setattr(together, "bytes_needed", needed)
    monkeypatch.setattr(together, "device_memory", lambda: 22_000)
    fitting, line = with_fitting_batch(recipe)
    assert sizes == [64, 32, 16]
    assert fitting == vary(recipe, batch_size=16, lr=0.02)
    assert "batches of 16, the largest that fit" in line
    monkeypatch.setattr(together, "device_memory", lambda: 10**9)
    assert with_fitting_batch(recipe)[0] == recipe


def test_what_a_step_takes_is_known_of_a_real_one():
    recipe = named("sgd_digits")
    from experiments.finetune.memory import _bytes_of_step

    small, large = (_bytes_of_step(vary(recipe, batch_size=one)) for one in (8, 128))
    assert 0 < small < large
