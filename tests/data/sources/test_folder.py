import numpy as np
import pytest

from jaxlt.data.pipelines.tf_pipeline import evaluation_batches
from jaxlt.data.sources.folder import load_folder
from jaxlt.data.sources.source import load_source
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError


def write_image(path, shape, color):
    tf = import_tensorflow()
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.broadcast_to(np.uint8(color), (*shape, 3))
    encode = tf.io.encode_jpeg if path.suffix == ".jpg" else tf.io.encode_png
    path.write_bytes(encode(image).numpy())


@pytest.fixture
def directory(tmp_path):
    write_image(tmp_path / "train" / "cat" / "b.png", (6, 9), (10, 20, 30))
    write_image(tmp_path / "train" / "cat" / "a.jpg", (40, 8), (200, 200, 200))
    write_image(tmp_path / "train" / "ant" / "z.PNG", (8, 8), (0, 255, 0))
    write_image(tmp_path / "test" / "cat" / "c.png", (5, 5), (1, 2, 3))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_files_are_found_in_order_decoded_and_resized(directory):
    loaded = load_folder(directory, 8)
    assert loaded.class_names == ("ant", "cat")
    assert loaded.train.labels.tolist() == [0, 1, 1]
    assert loaded.test.labels.tolist() == [1]
    images = loaded.train.read(np.array([2, 0, 1])).numpy()
    assert images.shape == (3, 8, 8, 3)
    colors = np.array([(10, 20, 30), (0, 255, 0), (200, 200, 200)])
    expected = np.broadcast_to(colors[:, None, None], images.shape)
    np.testing.assert_allclose(images, expected, atol=1)


def test_shrinking_is_antialiased(tmp_path):
    tf = import_tensorflow()
    stripes = (
        np.tile(np.array([255, 0, 0, 0, 0, 0, 0, 0], np.uint8), 4)[None, :, None]
        .repeat(32, 0)
        .repeat(3, 2)
    )
    for part in ("train", "test"):
        path = tmp_path / part / "x" / "stripes.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(tf.io.encode_png(stripes).numpy())
    images = load_folder(tmp_path, 4).train.read(np.array([0])).numpy()
    # Plain bilinear sampling falls between the stripes and sees nothing but black.
    np.testing.assert_allclose(images[0, :, 1:-1], 255 / 8, atol=8)


def test_images_flow_through_a_pipeline(directory):
    source = load_source(f"folder:{directory}")
    assert source.image_shape == (32, 32, 3)
    batch = next(
        evaluation_batches(source.train, batch_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    )
    np.testing.assert_allclose(batch.images[0, 5, 5], [0, 1, 0])
    assert batch.labels.tolist() == [0, 1, 1, -1]


def test_images_are_loaded_into_memory_in_the_order_asked_for(tmp_path):
    for number in range(70):
        for part in ("train", "test"):
            write_image(tmp_path / part / "x" / f"{number:03}.png", (2, 2), 3 * number)
    order = np.random.default_rng(0).permutation(70)
    loaded = load_folder(tmp_path, 2).train.load(order)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(
        loaded, np.broadcast_to(3 * order[:, None, None, None], (70, 2, 2, 3))
    )


def test_an_undecodable_file_is_named(directory):
    broken = directory / "train" / "cat" / "b.png"
    whole = load_source(f"folder:{directory}")
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UsageError, match=r"image .*cat/b\.png cannot be decoded") as caught:
        list(evaluation_batches(whole.train, batch_size=1, mean=whole.mean, std=whole.std))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"image .*cat/b\.png cannot be decoded"):
        whole.train.load(np.arange(3))
    with pytest.raises(UsageError, match=r"image .*cat/b\.png cannot be decoded"):
        load_source(f"folder:{directory}")


def test_a_missing_directory_is_named(directory):
    with pytest.raises(UsageError, match="absent/train must be a directory"):
        load_folder(directory / "absent", 8)


def test_an_empty_class_is_named(directory):
    (directory / "train" / "dog").mkdir()
    with pytest.raises(UsageError, match=r"train/dog must hold a .*, got none"):
        load_folder(directory, 8)


def test_a_part_without_classes_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="train must hold one directory a class, got none"):
        load_folder(tmp_path, 8)


def test_an_unknown_test_class_is_named(directory):
    write_image(directory / "test" / "dog" / "a.png", (5, 5), 0)
    with pytest.raises(UsageError, match=r"test must have the classes of .*train, got 'dog'"):
        load_folder(directory, 8)
