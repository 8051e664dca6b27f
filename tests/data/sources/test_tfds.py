from typing import Any

import numpy as np
import pytest
from PIL import Image
from tfds_files import write, write_known

from jaxlt.data.augment.crops import NUM_TRIES
from jaxlt.data.sources.resampling import resize_array
from jaxlt.data.sources.source import load_source
from jaxlt.data.sources.tfds import make_builder
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

NUM_CLASSES = 3


@pytest.fixture
def tfds(tmp_path, monkeypatch) -> Any:
    """Returns tensorflow_datasets, whose data directory is the test's own."""
    import_tensorflow()
    import tensorflow_datasets

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


def examples(features, split, count):
    """Image number i is filled with gray level i and has label i modulo 3.

    An image shape of unknown size gets sides 4, 7 and 50 in turn.
    """
    for i in range(count):
        side = features["image"].shape[0] or (4, 7, 50)[i % 3]
        shape = (side, side, features["image"].shape[2])
        example = {"image": np.full(shape, i % 256, np.uint8), "label": i % NUM_CLASSES}
        extra = {"id": f"{split}_{i:05d}", "coarse_label": 0}
        yield example | {key: extra[key] for key in extra if key in features}


def prepare(tfds, directory, name, features, *, splits, **options):
    """Writes a data set with so many examples in each split."""
    made = {split: list(examples(features, split, count)) for split, count in splits.items()}
    write(tfds, directory, name, features, splits=made, **options)


def prepare_known(tfds, directory, name, class_name, **splits):
    features = tfds.builder(name, data_dir=str(directory)).info.features
    made = {split: list(examples(features, split, count)) for split, count in splits.items()}
    write_known(tfds, directory, name, class_name, made)


def tiny_features(tfds, side: int | None = 4):
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(side, side, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )


def gray_levels(images):
    pixels = images.read(np.arange(len(images.labels))).numpy()
    assert (pixels == pixels[:, :1, :1, :1]).all()
    return pixels[:, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "class_name", "num_classes"),
    [("cifar10", "Cifar10", 10), ("cifar100", "Cifar100", 100)],
)
def test_cifar_comes_in_its_original_order(tfds, tmp_path, name, class_name, num_classes):
    prepare_known(tfds, tmp_path, name, class_name, train=40, test=9)
    source = load_source(f"tfds:{name}")
    assert gray_levels(source.train).tolist() == list(range(40))
    assert source.train.labels.tolist() == [i % NUM_CLASSES for i in range(40)]
    assert gray_levels(source.test).tolist() == list(range(9))
    assert (source.num_classes, source.image_shape) == (num_classes, (32, 32, 3))
    assert source.mean == (0.4914, 0.4822, 0.4465)
    assert source.std == (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize(
    ("name", "class_name", "shape"),
    [("fashion_mnist", "FashionMnist", (28, 28, 1)), ("svhn_cropped", "SvhnCropped", (32, 32, 3))],
)
def test_known_sets_pair_images_with_their_labels(tfds, tmp_path, name, class_name, shape):
    prepare_known(tfds, tmp_path, name, class_name, train=40, test=9, extra=3)
    source = load_source(f"tfds:{name}")
    levels = gray_levels(source.train)
    assert sorted(levels.tolist()) == list(range(40))
    np.testing.assert_array_equal(source.train.labels, levels % NUM_CLASSES)
    assert source.image_shape == shape
    # The gray levels 0..39 have mean 19.5 and variance (40**2 - 1) / 12.
    np.testing.assert_allclose(source.mean, [19.5 / 255] * shape[2], rtol=1e-6)
    np.testing.assert_allclose(source.std, [np.sqrt(1599 / 12) / 255] * shape[2], rtol=1e-6)


def test_a_set_of_ones_own_is_loaded_in_one_order_always(tfds, tmp_path):
    prepare(tfds, tmp_path, "TinySet", tiny_features(tfds), splits={"train": 300, "test": 3})
    first, second = (load_source("tfds:tiny_set:1.0.0") for _ in range(2))
    assert first.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(gray_levels(first.train), gray_levels(second.train))
    np.testing.assert_array_equal(first.train.labels, second.train.labels)


def test_images_of_many_sizes_are_resized(tfds, tmp_path):
    features = tiny_features(tfds, side=None)
    prepare(tfds, tmp_path, "TinySet", features, splits={"train": 40, "test": 9})
    assert load_source("tfds:tiny_set").image_shape == (32, 32, 3)
    source = load_source("tfds:tiny_set", image_size=6)
    assert source.image_shape == (6, 6, 3)
    assert sorted(gray_levels(source.train).tolist()) == list(range(40))


@pytest.mark.parametrize("image_size", [4, 9, 3])
def test_images_of_one_size_are_resized_as_arrays_are(tfds, tmp_path, image_size):
    features = tiny_features(tfds)
    random = np.random.default_rng(0)
    made = [
        {"image": random.integers(0, 256, (4, 4, 3), np.uint8), "label": number % NUM_CLASSES}
        for number in range(12)
    ]
    write(tfds, tmp_path, "TinySet", features, splits={"train": made, "test": made[:3]})
    own = load_source("tfds:tiny_set").train.load(np.arange(12))
    train = load_source("tfds:tiny_set", image_size=image_size).train
    assert train.image_shape == (image_size, image_size, 3)
    np.testing.assert_array_equal(train.load(np.arange(12)), resize_array(own, image_size))
    whole = np.zeros((12, NUM_TRIES, 2)), np.zeros((12, 2))
    whole[0][:] = 1 - 2**-53, 0.5
    if image_size > 4:
        crops = train.read_crops(np.arange(12), *whole).numpy()
        for crop, pixels in zip(crops, own, strict=True):
            stretched = Image.fromarray(pixels).resize((9, 9), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(crop, stretched)


def test_a_validation_split_stands_in_for_a_missing_test_split(tfds, tmp_path):
    prepare(tfds, tmp_path, "TinySet", tiny_features(tfds), splits={"train": 6, "validation": 3})
    assert len(load_source("tfds:tiny_set").test.labels) == 3


def test_a_set_without_a_test_split_is_refused(tfds, tmp_path):
    prepare(tfds, tmp_path, "TinySet", tiny_features(tfds), splits={"train": 6})
    with pytest.raises(UsageError, match=r"must have splits train and test .*got train"):
        load_source("tfds:tiny_set")


@pytest.mark.parametrize("keys", [None, ("label", "image"), ("image", "image")])
def test_a_set_without_images_and_labels_is_refused(tfds, tmp_path, keys):
    features = tiny_features(tfds)
    prepare(tfds, tmp_path, "TinySet", features, splits={"train": 3, "test": 3}, keys=keys)
    with pytest.raises(UsageError, match="tfds:tiny_set must hold 8-bit images"):
        load_source("tfds:tiny_set")


def test_a_set_that_is_not_of_images_is_refused_before_it_is_downloaded(tfds, tmp_path):
    with pytest.raises(UsageError, match="tfds:lm1b must hold 8-bit images"):
        load_source("tfds:lm1b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["cifra10", "../cifar10", "cifar10:9.9.9", "cifar10/none", "imagenet2012"]
)
def test_a_set_that_cannot_be_prepared_is_one_line(tfds, name):
    # imagenet2012 stands for failing downloads: its archive must be fetched by hand, so
    # preparing it fails at once, with or without a network.
    with pytest.raises(UsageError, match=f"dataset tfds:{name} must be available: ") as caught:
        load_source(f"tfds:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["huggingface:mnist", "kubric:movi_a/128x128", "a:b:1.0.0"])
def test_sets_whose_code_would_be_downloaded_are_refused(name):
    with pytest.raises(UsageError, match="download code and run it"):
        make_builder(name)
