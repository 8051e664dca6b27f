import numpy as np
import pytest

from jaxlt.data.image_set import ArrayImages, resize_array
from jaxlt.data.sources import load_source
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
    with pytest.raises(
        UsageError, match="is unknown, it must be digits, idx:DIR, tfds:NAME, folder:DIR, list:"
    ):
        load_source(spec)


@pytest.mark.parametrize("image_size", [0, -3])
def test_image_sizes_below_one_are_refused(image_size):
    with pytest.raises(UsageError, match=f"image size is {image_size}, it must be at least 1"):
        load_source("digits", image_size=image_size)


def test_test_labels_beyond_the_training_classes_are_refused(tmp_path):
    write_idx_set(tmp_path, train_labels=[0, 1, 1], test_labels=[0, 2])
    with pytest.raises(UsageError, match=r"test labels from 0 to 2, they must lie in 0\.\.1"):
        load_source(f"idx:{tmp_path}")


def test_a_constant_channel_has_a_positive_deviation(tmp_path):
    write_idx_set(tmp_path, train_labels=[0, 1], test_labels=[0])
    source = load_source(f"idx:{tmp_path}")
    assert source.mean == (0.0,)
    assert source.std[0] > 0


def test_reading_an_array_in_a_graph_copies_it_into_no_constant():
    from jaxlt.data.tensorflow_runtime import import_tensorflow

    tf = import_tensorflow()
    images = ArrayImages(np.zeros((1000, 32, 32, 3), np.uint8), np.zeros(1000, int))
    graph = tf.function(images.read).get_concrete_function(tf.TensorSpec((4,), tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 10_000


def test_an_array_is_loaded_as_it_is_read():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 1), np.uint8)
    images = ArrayImages(pixels, np.zeros(9, int))
    indices = np.array([8, 0, 3])
    np.testing.assert_array_equal(images.load(indices), images.read(indices).numpy())


def test_resizing_in_chunks_covers_every_image():
    images = np.arange(2500, dtype=np.uint16)[:, None, None, None] % 251
    images = np.broadcast_to(images, (2500, 2, 2, 1)).astype(np.uint8)
    resized = resize_array(images, 3)
    assert resized.shape == (2500, 3, 3, 1)
    assert (resized == images[:, :1, :1]).all()


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
