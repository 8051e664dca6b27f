import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from jaxlt.data.sources.idx import load_idx, read_idx
from jaxlt.data.sources.resampling import resize_array
from jaxlt.errors import UsageError


def idx_bytes(array, shape=None):
    shape = array.shape if shape is None else shape
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + array.tobytes()


def pixels(count, seed, side=5):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), np.uint8)


def write_set(directory, *, prefix="", test="t10k", zipped=False, base=0):
    """Writes the four files of a set of 12 training and 6 test images of 3 classes."""
    for part, count in (("train", 12), (test, 6)):
        labels = (np.arange(count) % 3 + base).astype(np.uint8)
        for kind, array in (("images-idx3", pixels(count, count)), ("labels-idx1", labels)):
            data = idx_bytes(array)
            name = f"{prefix}{part}-{kind}-ubyte" + ".gz" * zipped
            (directory / name).write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("prefix", "test", "base", "names"),
    [("", "t10k", 0, ("0", "1", "2")), ("emnist-letters-", "test", 1, ("1", "2", "3"))],
)
def test_sets_are_read_as_written(tmp_path, zipped, prefix, test, base, names):
    write_set(tmp_path, prefix=prefix, test=test, zipped=zipped, base=base)
    loaded = load_idx(tmp_path, None)
    assert loaded.class_names == names
    assert loaded.train.image_shape == (5, 5, 1)
    for images, count in ((loaded.train, 12), (loaded.test, 6)):
        np.testing.assert_array_equal(images.labels, np.arange(count) % 3)
        assert images.labels.dtype == np.int32
        read = images.read(np.arange(count)[::-1]).numpy()
        np.testing.assert_array_equal(read[::-1, :, :, 0], pixels(count, count))


def test_a_plain_file_beside_its_compressed_copy_is_no_ambiguity(tmp_path):
    write_set(tmp_path)
    write_set(tmp_path, zipped=True)
    assert len(load_idx(tmp_path, None).train.labels) == 12


@pytest.mark.parametrize("size", [10, 5, 3])
def test_images_are_resized_on_request(tmp_path, size):
    write_set(tmp_path)
    train = load_idx(tmp_path, size).train
    assert train.image_shape == (size, size, 1)
    expected = resize_array(pixels(12, 12)[..., np.newaxis], size)
    np.testing.assert_array_equal(train.load(np.arange(12)), expected)


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path, missing):
    write_set(tmp_path)
    (tmp_path / missing).unlink()
    pattern = missing.replace("-idx", ".idx")
    with pytest.raises(UsageError, match=rf"exactly one file \*{pattern}.*got none"):
        load_idx(tmp_path, None)


def test_two_sets_in_one_directory_are_refused(tmp_path):
    write_set(tmp_path, prefix="emnist-letters-")
    write_set(tmp_path, prefix="emnist-digits-")
    with pytest.raises(UsageError, match=r"emnist-digits-train.*, emnist-letters-train"):
        load_idx(tmp_path, None)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UsageError, match="absent must be a directory"):
        load_idx(tmp_path / "absent", None)


@pytest.mark.parametrize("kept", [3, 20, 60, -4])
def test_truncated_gzip_is_refused(tmp_path, kept):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(pixels(12, 0)))[:kept])
    with pytest.raises(UsageError, match=r"images\.gz must be whole gzip"):
        read_idx(path, 3)


@pytest.mark.parametrize("position", [30, -6])
def test_damaged_gzip_is_refused(tmp_path, position):
    path = tmp_path / "images.gz"
    data = bytearray(gzip.compress(idx_bytes(pixels(12, 0))))
    data[position] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"images\.gz"):
        read_idx(path, 3)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("shape", "has"),
    [
        ((12, 5, 6), "only 300|316 at most"),
        ((11, 5, 5), "more"),
        ((0, 5, 5), "more"),
        ((2**32 - 1,) * 3, "[0-9]+ at most"),
        # As large as a gzip file of this size can be, and too large for NumPy.
        ((4, 256, 256), "only 300|316 at most"),
        ((0, 2**32 - 1, 2**32 - 1), "more"),
    ],
)
def test_a_lying_header_is_refused_without_allocating_what_it_claims(tmp_path, zipped, shape, has):
    path = tmp_path / "images"
    data = idx_bytes(pixels(12, 0), shape)
    path.write_bytes(gzip.compress(data) if zipped else data)
    tracemalloc.start()
    with pytest.raises(UsageError, match=f"got ({has})"):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0\0\1", b"\0\0\x0d\x03" + bytes(20), b"\x89PNG" * 9],
)
def test_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="must be of 3-dimensional unsigned bytes"):
        read_idx(path, 3)


def test_labels_in_place_of_images_are_refused(tmp_path):
    write_set(tmp_path)
    with pytest.raises(UsageError, match="start with 00000803 and 3 sizes, got 00000801"):
        read_idx(tmp_path / "train-labels-idx1-ubyte", 3)


def test_images_and_labels_of_different_length_are_refused(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(UsageError, match=r"got 12 images in .* 11 labels"):
        load_idx(tmp_path, None)


def test_test_images_of_another_size_are_refused(tmp_path):
    write_set(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(pixels(6, 0, side=4)))
    with pytest.raises(UsageError, match=r"got \(5, 5\) for training and \(4, 4\) for tests"):
        load_idx(tmp_path, None)


def test_an_empty_set_is_refused(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(pixels(0, 0)))
    with pytest.raises(UsageError, match="must hold something"):
        load_idx(tmp_path, None)
