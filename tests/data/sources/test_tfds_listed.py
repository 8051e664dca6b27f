"""Lists over the records of tensorflow-datasets, written from a tree of JPEG files."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_trees import write_tree
from tfds_files import write_known

from jaxlt.data.sources.source import load_source
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

COUNTS = (5, 3, 2)
# The set, its class, and how it names an image of the layout's tree.
SETS = {
    "imagenet": ("imagenet2012", "Imagenet2012", "file_name", lambda path: path.name),
    "places": ("places365_small", "Places365Small", "filename", str),
    "inaturalist": ("i_naturalist2018", "INaturalist2018", "id", lambda path: path.stem),
}


@pytest.fixture
def tfds(tmp_path, monkeypatch) -> Any:
    """Returns tensorflow_datasets, whose data directory is the test's own."""
    import_tensorflow()
    import tensorflow_datasets

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


def prepared(tfds, tmp_path, layout, file_format="array_record"):
    """Writes a tree and the same images as records; returns the tree and the set's flag."""
    tree = write_tree(tmp_path / "tree", layout, COUNTS)
    name, class_name, key, named = SETS[layout]
    splits = {"train": [tree.train, tree.val], "validation": [tree.test]}
    known = tfds.builder(name, data_dir=str(tmp_path / "tfds")).info.features
    made = {
        split: [
            {"image": str(tree.root / path), "label": 0, key: named(Path(path))}
            | ({"supercategory": 0} if "supercategory" in known else {})
            for listed in lists
            if listed
            for path in (line.split()[0] for line in listed.read_text().splitlines())
        ]
        for split, lists in splits.items()
    }
    write_known(tfds, tmp_path / "tfds", name, class_name, made, file_format)
    return tree, tree.spec.replace(f"list:{tree.root},", f"tfds:{name},")


@pytest.mark.parametrize("layout", SETS)
def test_a_list_selects_the_images_of_its_lines(tfds, tmp_path, layout):
    tree, spec = prepared(tfds, tmp_path, layout)
    files, records = (
        load_source(place, image_size=16, resize="center_crop") for place in (tree.spec, spec)
    )
    assert records.class_names == files.class_names
    assert (records.mean, records.std) == (files.mean, files.std)
    for part in ("train", "val", "test"):
        expected, found = getattr(files, part), getattr(records, part)
        if expected is None:
            assert found is None
            continue
        everything = np.arange(len(expected.labels))
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.load(everything), expected.load(everything))


def test_names_are_read_once(tfds, tmp_path, caplog):
    _, spec = prepared(tfds, tmp_path, "imagenet")
    with caplog.at_level(logging.INFO, "jaxlt"):
        first = load_source(spec, image_size=8)
    assert "train: names of 0 of 16 images read" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "jaxlt"):
        second = load_source(spec, image_size=8)
    assert "names" not in caplog.text
    assert first.mean == second.mean
    # What an earlier version of the set left behind is not trusted.
    (kept,) = (tmp_path / "tfds").rglob("jaxlt_names_train.txt")
    kept.write_text("one line\n")
    assert load_source(spec, image_size=8).mean == first.mean
    assert len(kept.read_text().splitlines()) == 16


def test_lines_without_an_image_are_reported_with_other_bad_ones(tfds, tmp_path):
    tree, spec = prepared(tfds, tmp_path, "places")
    lines = tree.train.read_text().splitlines()
    tree.train.write_text("\n".join([*lines, "data_256/none.jpg 1", "data_256/other.jpg x"]))
    with pytest.raises(UsageError) as caught:
        load_source(spec)
    assert str(caught.value) == (
        f"list files must have no bad line, got 2 bad lines: {tree.train}:11 image must be one of "
        f"tfds:places365_small, got data_256/none.jpg; {tree.train}:12 label must be a number, "
        "got 'x'"
    )


def test_two_paths_of_one_image_are_reported(tfds, tmp_path):
    tree, spec = prepared(tfds, tmp_path, "imagenet")
    line = tree.train.read_text().splitlines()[0]
    with tree.test.open("a") as file:
        file.write(f"elsewhere/{line}\n")
    with pytest.raises(
        UsageError, match=rf"{tree.test}:7 image must be new, got elsewhere/.* that of {line[:5]}"
    ):
        load_source(spec)


def test_an_unreadable_image_is_named_by_its_line(tfds, tmp_path):
    tree = write_tree(tmp_path / "tree", "imagenet", COUNTS)
    first = tree.train.read_text().split()[0]
    broken = tree.root / first
    broken.write_bytes(broken.read_bytes()[:300])
    examples = [
        {"image": str(tree.root / line.split()[0]), "label": 0, "file_name": Path(line).name[:-2]}
        for listed in (tree.train, tree.test)
        for line in listed.read_text().splitlines()
    ]
    splits = {"train": examples}
    directory = tmp_path / "tfds"
    write_known(tfds, directory, "imagenet2012", "Imagenet2012", splits, "array_record")
    spec = f"tfds:imagenet2012,{tree.train},{tree.test}"
    source = load_source(spec, image_size=8, normalization="imagenet")
    (found,) = source.train.undecodable()
    assert found.startswith(f"{tree.train}:1 {first} cannot be decoded: ")


def test_other_formats_are_refused(tfds, tmp_path):
    _, spec = prepared(tfds, tmp_path, "imagenet", file_format="tfrecord")
    with pytest.raises(UsageError, match=r"must be array_record .*got tfrecord"):
        load_source(spec)


def test_sets_that_do_not_name_their_images_are_refused(tmp_path, tfds):
    tree = write_tree(tmp_path / "tree", "imagenet", COUNTS)
    with pytest.raises(UsageError, match="tfds:fashion_mnist must name its images by file_name or"):
        load_source(f"tfds:fashion_mnist,{tree.train},{tree.test}")


@pytest.mark.parametrize("place", ["imagenet2012,a,b,c,d,e", "x,,b"])
def test_the_form_is_checked_first(place):
    form = r"must be tfds:NAME,TRAIN or tfds:NAME,TRAIN,TEST or tfds:NAME,TRAIN,VAL,TEST or "
    with pytest.raises(UsageError, match=form):
        load_source(f"tfds:{place}")
