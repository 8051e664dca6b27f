import dataclasses

import numpy as np
import pytest
from jpeg_trees import long_tail, write_tree
from PIL import Image

from jaxlt.data.sampling.long_tail import Split, long_tailed_split
from jaxlt.data.sources.image_set import refuse_undecodable
from jaxlt.data.sources.source import load_source
from jaxlt.errors import UsageError

COUNTS = (6, 4, 3, 2, 1)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path, "imagenet", COUNTS, evaluated_per_class=2, open_images=3)


def spec(tree, **lists):
    return dataclasses.replace(tree, **lists).spec


def edited(tree, tmp_path, change):
    """Returns the specification with a training list whose lines were changed."""
    path = tmp_path / "edited.txt"
    path.write_text("\n".join(change(tree.train.read_text().splitlines())))
    return spec(tree, train=path)


@pytest.mark.parametrize("layout", ["imagenet", "places", "inaturalist"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_published_layouts_are_read(tmp_path, layout, newline):
    counts = long_tail(12, 9, 1)
    tree = write_tree(tmp_path, layout, counts, open_images=3, newline=newline)
    source = load_source(tree.spec, image_size=16, resize="center_crop", normalization="imagenet")
    assert source.image_shape == (16, 16, 3)
    assert (source.num_classes, len(set(source.class_names))) == (12, 12)
    np.testing.assert_array_equal(np.bincount(source.train.labels), counts)
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2] * 12)
    assert source.train.read(np.arange(3)).shape == (3, 16, 16, 3)
    if layout == "inaturalist":
        assert (source.val, source.open) == (None, None)
        assert source.class_names[3] == "3"
    else:
        assert source.val is not None
        assert source.open is not None
        assert np.bincount(source.val.labels).tolist() == [2] * 12
        assert source.open.labels.tolist() == [-1] * 3
        expected = "n10000111" if layout == "imagenet" else "d_place_3/outdoor"
        assert source.class_names[3].endswith(expected[-7:])


def test_images_are_those_of_their_lines(tree):
    source = load_source(tree.spec, image_size=8)
    lines = tree.train.read_text().splitlines()
    for number in (0, 5, len(lines) - 1):
        path, label = lines[number].split()
        pixels = Image.open(tree.root / path).convert("RGB")
        expected = np.asarray(pixels.resize((8, 8), Image.Resampling.BILINEAR), int)
        found = source.train.load(np.array([number]))[0]
        assert np.abs(found - expected).max() <= 1
        assert source.train.labels[number] == int(label)


def test_a_native_split_is_the_list(tree, tmp_path):
    source = load_source(tree.spec, image_size=8)
    split = long_tailed_split(source, profile="native")
    assert split.class_counts == COUNTS
    assert split.indices.tolist() == list(range(sum(COUNTS)))
    assert split.imbalance_factor == 6
    split.write(tmp_path / "split.json")
    again = Split.read(tmp_path / "split.json", source)
    np.testing.assert_array_equal(again.indices, split.indices)
    with pytest.raises(UsageError, match="max_per_class must be None with profile native, got 2"):
        long_tailed_split(source, profile="native", max_per_class=2)


def test_published_statistics_are_taken_by_name(tree):
    imagenet = load_source(tree.spec, image_size=8, normalization="imagenet")
    assert (imagenet.mean, imagenet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    inat = load_source(tree.spec, image_size=8, normalization="inaturalist2018")
    assert (inat.mean, inat.std) == ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192))
    clip = load_source(tree.spec, image_size=8, normalization="clip")
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073)
    assert clip.std == (0.26862954, 0.26130258, 0.27577711)
    own = load_source(tree.spec, image_size=8)
    pixels = own.train.load(np.arange(sum(COUNTS))).reshape(-1, 3) / 255
    np.testing.assert_allclose(own.mean, pixels.mean(axis=0))
    with pytest.raises(UsageError, match="must have 3 channels for normalization imagenet, got 1"):
        load_source("digits", normalization="imagenet")


def test_what_is_for_files_is_refused_for_arrays():
    with pytest.raises(
        UsageError,
        match=r"resize must be stretch but for image files .* got center_crop for digits",
    ):
        load_source("digits", resize="center_crop")


def test_all_bad_lines_of_all_lists_are_reported_at_once(tree, tmp_path, caplog):
    first = tree.test.read_text().splitlines()[0]
    (tmp_path / "test.txt").write_text(f"{first}\nval/none.JPEG 1\n{first}\n")
    trained = tree.train.read_text().splitlines()[0].split()[0]
    (tmp_path / "val.txt").write_text(f"{trained} 0\nnolabel\n")

    def change(lines):
        return [f"{lines[0].split()[0]} 77", *lines[1:], "../x.JPEG 0"]

    path = tmp_path / "train.txt"
    path.write_text("\n".join(change(tree.train.read_text().splitlines())))
    lists = {"train": path, "val": tmp_path / "val.txt", "test": tmp_path / "test.txt"}
    with pytest.raises(UsageError) as caught:
        load_source(spec(tree, **lists, open=None))
    message = str(caught.value)
    assert message.startswith("list files must have no bad line, got 6 bad lines: ")
    assert "\n" not in message
    assert f"{tmp_path}/test.txt:2 image must be a file, got {tmp_path}/val/none.JPEG" in message
    assert f"{tmp_path}/train.txt:1 label must lie in 0..16, got 77" in message
    assert f"{tmp_path}/train.txt:17 path must be relative" in message
    assert message.endswith("; and 1 more, see above")
    assert f"{tmp_path}/val.txt:2 must have a path and a label, got 'nolabel'" in caplog.messages


@pytest.mark.parametrize(
    ("part", "text", "reason"),
    [
        ("test", "{test} 5", r"label must lie in 0\.\.4, got 5"),
        ("test", "{test} -1", r"label must lie in 0\.\.4, got -1"),
        ("open", "{test} 0", "label must be -1, got 0"),
        ("test", "{train} 0", "must not be in the training list"),
    ],
)
def test_labels_and_images_of_the_other_lists_are_checked(tree, tmp_path, part, text, reason):
    images = {name: getattr(tree, name).read_text().split()[0] for name in ("train", "test")}
    path = tmp_path / "other.txt"
    path.write_text(text.format(**images))
    with pytest.raises(UsageError, match=f"got 1 bad line: {path}:1 .*{reason}"):
        load_source(spec(tree, **{part: path}))


def test_a_class_without_a_training_image_is_named(tree, tmp_path):
    changed = edited(tree, tmp_path, lambda lines: [x for x in lines if not x.endswith(" 3")])
    with pytest.raises(
        UsageError,
        match=r"edited\.txt:2 label must have all .* below it in the list, got 4 and no 3",
    ):
        load_source(changed)


def test_no_label_is_blamed_for_lines_that_are_bad_otherwise(tree, tmp_path):
    def change(lines):
        return [line if line.endswith(" 4") else f"/{line}" for line in lines]

    with pytest.raises(UsageError, match="got 15 bad lines") as caught:
        load_source(edited(tree, tmp_path, change))
    assert "label must" not in str(caught.value)


@pytest.mark.parametrize("place", ["{root}", ",{train},{test}", "{root},{train},"])
def test_other_forms_are_refused(tree, place):
    place = place.format(root=tree.root, train=tree.train, test=tree.test)
    with pytest.raises(UsageError, match="must be list:ROOT,TRAIN or list:"):
        load_source(f"list:{place}")


def test_a_missing_root_is_refused_before_any_list_is_read(tree):
    with pytest.raises(UsageError, match="must be a directory, got /nowhere"):
        load_source(f"list:/nowhere,{tree.train},{tree.test}")


def test_undecodable_images_are_named_together_with_their_lines(tree):
    source = load_source(tree.spec, image_size=8)
    lines = tree.train.read_text().splitlines()
    paths = [tree.root / lines[number].split()[0] for number in (2, 9)]
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    paths[1].write_bytes(b"no image")
    found = source.train.undecodable()
    assert len(found) == 2
    for path, line, message in zip(paths, (3, 10), found, strict=True):
        assert message.startswith(f"{tree.train}:{line} {path} cannot be decoded: ")
        assert not message.rstrip().endswith(":")
        assert not set("\n{[") & set(message)
    with pytest.raises(
        UsageError, match=f"got 2 that are not: {tree.train}:3 .*; {tree.train}:10 "
    ):
        refuse_undecodable(found)
    with pytest.raises(
        UsageError,
        match=f"^image must be decodable, got {tree.train}:10 {paths[1]} cannot be decoded: ",
    ):
        source.train.load(np.array([8, 9]))
    assert source.train.undecodable(np.array([0, 1, 3])) == []


def test_a_training_list_alone_has_no_test_images(tree):
    source = load_source(f"list:{tree.root},{tree.train}", image_size=8)
    assert len(source.train.labels) == sum(COUNTS)
    assert (len(source.test.labels), source.val, source.open) == (0, None, None)


def test_classes_may_be_numbered_by_size(tmp_path):
    counts = (2, 5, 1, 5)
    tree = write_tree(tmp_path, "imagenet", counts, evaluated_per_class=2, open_images=3)
    given, sorted_by_size = (
        load_source(tree.spec, image_size=8, relabel=relabel) for relabel in ("none", "by_size")
    )
    order = (1, 3, 0, 2)
    assert given.class_numbers == (0, 1, 2, 3)
    assert sorted_by_size.class_numbers == order
    assert np.bincount(sorted_by_size.train.labels).tolist() == [5, 5, 2, 1]
    assert sorted_by_size.class_names == tuple(given.class_names[i] for i in order)
    for part in ("train", "val", "test"):
        old, new = getattr(given, part).labels, getattr(sorted_by_size, part).labels
        np.testing.assert_array_equal(np.array(order)[new], old)
    assert sorted_by_size.open.labels.tolist() == [-1] * 3


def test_a_comma_in_a_place_is_quoted_and_home_is_found(tmp_path, monkeypatch):
    root = tmp_path / 'a, "b" c'
    tree = write_tree(root, "inaturalist", COUNTS)
    quoted = '"' + str(root).replace('"', '""') + '"'
    lists = [f'"{str(path).replace(chr(34), chr(34) * 2)}"' for path in (tree.train, tree.test)]
    source = load_source(f"list:{quoted},{','.join(lists)}", image_size=8)
    assert source.train.load(np.arange(sum(COUNTS))).shape == (sum(COUNTS), 8, 8, 3)
    assert len(source.test.labels) == 2 * len(COUNTS)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.txt").write_bytes(tree.train.read_bytes())
    (tmp_path / "home").symlink_to(root)
    again = load_source("list:~/home,~/train.txt", image_size=8)
    np.testing.assert_array_equal(again.train.labels, source.train.labels)
    np.testing.assert_array_equal(again.train.load(np.arange(3)), source.train.load(np.arange(3)))


def test_images_of_names_with_blanks_and_any_suffix_are_read(tmp_path):
    names = ["two words.png", "a, b.webp", "no suffix", "\u00e9t\u00e9.tif", "._x.gif"]
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (40 * number, 0, 0)).save(tmp_path / name, "PNG")
    text = "".join(f"{name} {number % 2}\n" for number, name in enumerate(names))
    (tmp_path / "list.txt").write_text(text)
    source = load_source(f"list:{tmp_path},{tmp_path}/list.txt", image_size=4)
    found = source.train.load(np.arange(len(names)))[:, 0, 0, 0]
    assert found.tolist() == [40 * number for number in range(len(names))]
