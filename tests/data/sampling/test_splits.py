import dataclasses
import json

import numpy as np
import pytest

from jaxlt.data.sampling.long_tail import Split, long_tailed_split
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError


def make_source(labels, name="idx:/data/here", num_classes=3):
    images = ArrayImages(np.zeros((len(labels), 1, 1, 1), np.uint8), np.asarray(labels))
    names = tuple("abcdefg"[:num_classes])
    return Source(name, names, images, images, mean=(0.0,), std=(1.0,))


SOURCE = make_source(np.tile([0, 1, 2], 50))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "split.json"


def test_a_split_comes_back_as_it_was_written(path):
    split = long_tailed_split(SOURCE, imbalance_factor=10, class_order=(1, 0, 2), seed=4)
    split.write(path)
    back = Split.read(path, SOURCE)
    assert split.class_counts == (15, 50, 5)
    assert back.indices.dtype == np.int64
    np.testing.assert_array_equal(back.indices, split.indices)
    for field in dataclasses.fields(Split):
        if field.name != "indices":
            assert getattr(back, field.name) == getattr(split, field.name)


def test_a_colleague_may_keep_the_data_elsewhere(path):
    split = long_tailed_split(SOURCE, profile="step", imbalance_factor=5)
    split.write(path)
    elsewhere = dataclasses.replace(SOURCE, name="idx:/home/colleague/mnist")
    np.testing.assert_array_equal(Split.read(path, elsewhere).indices, split.indices)


def test_the_file_is_readable_and_nothing_else_is_left_behind(path):
    long_tailed_split(SOURCE, max_per_class=10, imbalance_factor=10).write(path)
    assert list(path.parent.iterdir()) == [path]
    assert [line.split(":")[0] for line in path.read_text().splitlines()[1:3]] == [
        '"format"',
        '"source"',
    ]
    assert json.loads(path.read_text())["class_counts"] == [10, 3, 1]


def test_a_failed_write_leaves_the_old_file_alone(path, monkeypatch):
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(UsageError, match="must be writable: No space left"):
        long_tailed_split(SOURCE, imbalance_factor=2).write(path)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_missing_directory_is_named(path):
    with pytest.raises(UsageError, match=r"absent/split.json must be writable: No such file"):
        long_tailed_split(SOURCE, imbalance_factor=2).write(path.parent / "absent" / "split.json")


@pytest.mark.parametrize(
    "other",
    [
        make_source(np.tile([0, 1, 2], 51)),
        make_source(np.tile([0, 2, 1], 50)),
        make_source(np.tile([0, 1, 2], 50), num_classes=4),
    ],
    ids=["more images", "other labels", "more classes"],
)
def test_a_split_of_other_data_is_refused(path, other):
    long_tailed_split(SOURCE, imbalance_factor=2).write(path)
    with pytest.raises(
        UsageError, match=r"split\.json must be made from .* got one made from idx:/data/here"
    ):
        Split.read(path, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [0, 1, 150]}, r"indices in 0\.\.149, got others or none"),
        ({"indices": [-1, 1, 2]}, "indices in 0"),
        ({"indices": []}, "got others or none"),
        ({"indices": [0, 1, 1, 2]}, "each index once, got one twice"),
        ({"indices": [0, 1, 2]}, "the class counts that its indices give, got others"),
        ({"indices": [0, 1.5]}, "Expected `(int|array)`"),
        ({"indices": [[0], [1, 2]]}, "Expected `(int|array)`"),
        ({"indices": [2**70]}, "Expected `(int|array)`"),
        ({"indices": {"0": 1}}, "Expected `(int|array)`"),
        ({"indices": 7}, "Expected `(int|array)`"),
        ({"class_counts": ["50"]}, "Expected `(int|array)`"),
        ({"num_images": "150"}, "`str` - at `\\$.num_images`"),
        ({"labels_sha256": None}, "`null` - at `\\$.labels_sha256`"),
        ({"format": "jaxlt split 0"}, "of the format 'jaxlt split 1'"),
        ({"surplus": 1}, "unknown field `surplus`"),
    ],
)
def test_tampered_files_are_refused(path, change, message):
    long_tailed_split(SOURCE, imbalance_factor=2).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=message) as caught:
        Split.read(path, SOURCE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[1, 2]", b'{"format": "jaxlt', b"[" * 100000, b"null"]
)
def test_garbage_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(
        UsageError, match=r"split file .* must be JSON of the format 'jaxlt split 1': "
    ):
        Split.read(path, SOURCE)


def test_a_missing_field_or_file_is_named(path):
    with pytest.raises(UsageError, match=r"split\.json must be readable: No such file"):
        Split.read(path, SOURCE)
    long_tailed_split(SOURCE, imbalance_factor=2).write(path)
    record = json.loads(path.read_text())
    del record["seed"]
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="missing required field `seed`"):
        Split.read(path, SOURCE)
