import numpy as np
import pytest

from jaxlt.data.sources.source import load_source
from jaxlt.errors import UsageError


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = load_source("digits")
    data, target = load_digits(return_X_y=True)
    assert (len(source.train.labels), len(source.test.labels)) == (1201, 596)
    assert source.image_shape == (8, 8, 1)
    assert source.num_classes == 10
    every = np.concatenate(
        [
            images.read(np.arange(len(images.labels))).numpy()
            for images in (source.train, source.test)
        ]
    )
    labels = np.concatenate([source.train.labels, source.test.labels])
    ours = sorted(zip(every.reshape(-1, 64).tolist(), labels.tolist(), strict=True))
    pixels = np.rint(data * 255 / 16).astype(int).tolist()
    assert ours == sorted(zip(pixels, target.tolist(), strict=True))


def test_digits_keep_a_third_of_every_class_for_testing():
    source = load_source("digits")
    train, test = (np.bincount(images.labels) for images in (source.train, source.test))
    np.testing.assert_array_equal(test, (train + test) // 3)


def test_statistics_are_those_of_the_training_pixels():
    source = load_source("digits")
    numbers = np.linspace(0, 1200, 1024, dtype=int)
    pixels = source.train.read(numbers).numpy() / 255
    np.testing.assert_allclose(source.mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(source.std, [pixels.std()], rtol=1e-6)


def test_images_are_resized_on_request():
    assert load_source("digits", image_size=12).image_shape == (12, 12, 1)


@pytest.mark.parametrize(
    "spec",
    ["mnist", "", "digits:", "idx:", "tfds:", "folder:", "list:", "IDX:/data", "/data/mnist"],
)
def test_unknown_specifications_are_refused(spec):
    with pytest.raises(UsageError, match="must be digits, idx:DIR, cifar:PATH, tfds:NAME, "):
        load_source(spec)


@pytest.mark.parametrize("image_size", [0, -3])
def test_image_sizes_below_one_are_refused(image_size):
    with pytest.raises(UsageError, match=f"image_size must be at least 1, got {image_size}"):
        load_source("digits", image_size=image_size)


def test_test_labels_beyond_the_training_classes_are_refused(tmp_path):
    write_idx_set(tmp_path, train_labels=[0, 1, 1], test_labels=[0, 2])
    with pytest.raises(UsageError, match=r"test labels of .* must lie in 0\.\.1, got 0 to 2"):
        load_source(f"idx:{tmp_path}")


def test_a_constant_channel_has_a_positive_deviation(tmp_path):
    write_idx_set(tmp_path, train_labels=[0, 1], test_labels=[0])
    source = load_source(f"idx:{tmp_path}")
    assert source.mean == (0.0,)
    assert source.std[0] > 0


def write_idx_set(directory, *, train_labels, test_labels):
    """Writes an IDX set of black images of 2 by 2 pixels."""
    for part, labels in (("train", train_labels), ("t10k", test_labels)):
        count = len(labels).to_bytes(4, "big")
        side = (2).to_bytes(4, "big")
        images = b"\0\0\x08\x03" + count + side + side + bytes(4 * len(labels))
        (directory / f"{part}-images-idx3-ubyte").write_bytes(images)
        (directory / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + count + bytes(labels)
        )
