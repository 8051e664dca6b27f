"""Data sets that Hugging Face's library writes here, read back; the hub is never asked."""

import io
import os
import sys
import threading

import datasets
import huggingface_hub
import numpy as np
import pytest
from datasets import config
from PIL import Image

from jaxlt.data import load_source
from jaxlt.data.sources.hugging_face import TableImages, load_hugging_face
from jaxlt.errors import UsageError
from jaxlt.files import hub_answer
from jaxlt.recipes import Data, Native
from jaxlt.recipes.sources import HuggingFace

NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)

    def asked(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", asked)


def image_of(label, number):
    color = np.array([40 * label + 10, 20 * number, 200], np.uint8)
    return np.broadcast_to(color, (6, 9, 3))


def encoded(label, number):
    content = io.BytesIO()
    Image.fromarray(image_of(label, number)).save(content, "PNG")
    return content.getvalue()


def table(labels, kind=None, image="image", label="label"):
    values = [{"bytes": encoded(one, i), "path": None} for i, one in enumerate(labels)]
    kind = kind or datasets.ClassLabel(names=list(NAMES))
    if kind == "string":
        shown = [NAMES[one] for one in labels]
    else:
        shown = [one + 5 for one in labels] if kind == "int64" else labels
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            image: datasets.Image(),
            label: datasets.Value(kind) if isinstance(kind, str) else kind,
        }
    )
    columns = {"id": list(range(len(labels))), image: values, label: shown}
    return datasets.Dataset.from_dict(columns, features=features)


def check(images, labels):
    assert images.labels.tolist() == labels
    pixels = images.load(np.arange(len(labels)))
    for i, label in enumerate(labels):
        # One color however it is resized.
        expected = np.broadcast_to(image_of(label, i)[:1, :1], (4, 4, 3))
        np.testing.assert_array_equal(pixels[i], expected)


TRAIN, VAL, TEST = [2, 0, 1, 0], [1], [0, 2]


def whole():
    return dict_of(train=table(TRAIN), validation=table(VAL), test=table(TEST))


def dict_of(**parts):
    return datasets.DatasetDict(parts)  # pyright: ignore[reportCallIssue]


def test_what_save_to_disk_wrote(tmp_path, caplog):
    caplog.set_level("INFO")
    whole().save_to_disk(tmp_path / "saved")
    loaded = load_hugging_face(str(tmp_path / "saved"), 4, "stretch")
    assert loaded.class_names == NAMES
    check(loaded.train, TRAIN)
    check(loaded.val, VAL)
    check(loaded.test, TEST)
    assert caplog.messages[-1].endswith("images are column image, labels label")
    assert loaded.train.name(3) == f"hf:{tmp_path / 'saved'} train row 3"


def test_tables_in_a_directory(tmp_path):
    (tmp_path / "a, b").mkdir()
    for part, one in whole().items():
        one.to_parquet(tmp_path / "a, b" / f"{part}-00000-of-00001.parquet")
    loaded = load_hugging_face(str(tmp_path / "a, b"), 4, "stretch")
    assert loaded.class_names == NAMES
    check(loaded.train, TRAIN)
    check(loaded.val, VAL)
    check(loaded.test, TEST)


def test_a_directory_of_images(tmp_path):
    for part, labels in (("train", sorted(TRAIN)), ("test", TEST)):
        for number, label in enumerate(labels):
            path = tmp_path / "photos" / part / NAMES[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(label, number))
    source = load_source(f"hf:{tmp_path / 'photos'}", image_size=4, resize="center_crop")
    assert source.class_names == NAMES
    check(source.train, sorted(TRAIN))
    check(source.test, TEST)
    assert source.val is None


def test_a_pipe_in_place_of_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    rows = [{"bytes": None, "path": str(tmp_path / "pipe.png")}]
    images = TableImages(rows, np.zeros(1, np.int32), "hf:photos", 4, "stretch")
    assert images.stored(0) == b""
    said = "hf:photos row 0 cannot be decoded: it is no regular file"
    assert images.undecodable() == [said]


def test_what_the_library_leaves_out_is_said(tmp_path, caplog):
    names = ["train/ant/a.png", "train/bee/b.png", "val/bee/c.png", "Test/bee/d.png"]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(encoded(0, 0))
    for name in ("README.md", "train/ant/e.heic", "train/bee/.DS_Store"):
        (tmp_path / "set" / name).touch()
    load_hugging_face(str(tmp_path / "set"), 8, "stretch")
    over = "1 .heic, 1 .md, 1 image in no part, 1 hidden"
    assert f"passed over in {tmp_path / 'set'}: 4 entries: {over}" in caplog.messages


@pytest.mark.parametrize(("kind", "names"), [("string", NAMES), ("int64", ("5", "6", "7"))])
def test_labels_of_texts_and_integers(tmp_path, kind, names):
    made = table(TRAIN, kind, image="img", label="target")
    dict_of(train=made).save_to_disk(tmp_path / "saved")
    loaded = load_hugging_face(str(tmp_path / "saved"), 4, "stretch")
    assert loaded.class_names == names
    check(loaded.train, TRAIN)
    assert len(loaded.test.labels) == 0


def test_bytes_without_a_type_of_images(tmp_path):
    """As pandas writes them."""
    columns = {"bytes": [encoded(label, i) for i, label in enumerate(TRAIN)], "label": TRAIN}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    check(load_hugging_face(str(tmp_path / "saved"), 4, "stretch").train, TRAIN)


def test_of_several_labels_the_fine_ones_are_taken(tmp_path):
    fine = table(TRAIN, label="fine_label")
    coarse = datasets.ClassLabel(names=["small", "large"])
    made = fine.add_column("coarse_label", [0, 1, 0, 1]).cast_column("coarse_label", coarse)
    made.save_to_disk(tmp_path / "saved")
    loaded = load_hugging_face(str(tmp_path / "saved"), 4, "stretch")
    assert loaded.class_names == NAMES
    check(loaded.train, TRAIN)


def test_test_images_without_labels_and_other_parts_are_passed_over(tmp_path, caplog):
    parts = {"train": table(TRAIN), "test": table([0, 0]), "extra": table(TEST)}
    features = parts["test"].features
    parts["test"] = parts["test"].map(lambda _: {"label": -1}, features=features)
    dict_of(**parts).save_to_disk(tmp_path / "saved")
    source = load_source(f"hf:{tmp_path / 'saved'}", image_size=4)
    assert len(source.test.labels) == 0
    assert "passed over extra" in caplog.text
    assert "test images have no labels and are passed over" in caplog.text
    data = Data(
        source=HuggingFace(dataset=str(tmp_path / "saved")), profile=Native(), validation=0.5
    )
    assert data.name == f"hf:{tmp_path / 'saved'}"
    assert data.split(source).class_counts == (1, 1, 1)


def test_an_only_part_of_another_name_is_said_to_be_trained_on(tmp_path, caplog):
    dict_of(test=table(TEST)).save_to_disk(tmp_path / "saved")
    check(load_hugging_face(str(tmp_path / "saved"), 4, "stretch").train, TEST)
    assert "test, its only part, is taken for training" in caplog.text


def no_label(labels):
    return table(labels).remove_columns(["label", "id"])


@pytest.mark.parametrize("more", [(), ("bee/@eaDir", "@eaDir", "#recycle")])
def test_clutter_makes_no_class_of_a_directory_of_images(tmp_path, caplog, more):
    root = tmp_path / "a [b]"
    for part in ("train", "test"):
        for name in ("ant", "bee", ".ipynb_checkpoints", "__MACOSX", "ant/.thumbs", *more):
            (root / part / name).mkdir(parents=True)
            Image.fromarray(image_of(0, 0)).save(root / part / name / "0.png")
    loaded = load_hugging_face(str(root), 4, "stretch")
    assert loaded.class_names == ("ant", "bee")
    assert loaded.train.labels.tolist() == loaded.test.labels.tolist() == [0, 1]
    assert all(name.rpartition("/")[2] in caplog.text for name in more)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"a": table(TRAIN), "b": table(TEST)}, "must have a part train, got a, b"),
        ({"train": no_label(TRAIN)}, "one column of class labels, .* got image$"),
        ({"train": table(TRAIN).remove_columns("image")}, "one column of images, .* got id, label"),
        ({"train": table(TRAIN), "test": no_label(TEST)}, "each part of .* columns image and lab"),
        (
            {
                "train": table(TRAIN),
                "test": table([0], datasets.ClassLabel(names=["bee", "ant"])),
            },
            "the same class names, got others",
        ),
        (
            {"train": table([0, 1], "string"), "test": table([2], "string")},
            "test labels of .* must be among the 2 classes of its training images, got 'cat'",
        ),
    ],
)
def test_what_does_not_fit_ends_in_one_line(tmp_path, parts, words):
    dict_of(**parts).save_to_disk(tmp_path / "saved")
    with pytest.raises(UsageError, match=words):
        load_hugging_face(str(tmp_path / "saved"), 4, "stretch")


def test_damage_ends_in_one_line(tmp_path):
    columns = {"image": [encoded(0, 0)[:40], encoded(1, 1)], "label": [0, 1]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    source = load_source(f"hf:{tmp_path / 'saved'}", image_size=4, unreadable="skip")
    with pytest.raises(UsageError, match=r"image must be decodable, got hf:.* train row 0 cannot"):
        source.train.load(np.arange(2))
    for path in (tmp_path / "saved").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="must be a data set that the library datasets reads"):
        load_hugging_face(str(tmp_path / "saved"), 4, "stretch")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="must be a data set that the library datasets reads"):
        load_hugging_face(str(tmp_path / "empty"), 4, "stretch")


def test_a_script_in_a_directory_is_not_run(tmp_path):
    directory = tmp_path / "scripted"
    directory.mkdir()
    (directory / "scripted.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    with pytest.raises(UsageError):
        load_hugging_face(str(directory), 4, "stretch")
    assert not (tmp_path / "harm").exists()


def test_without_an_answer_of_the_hub_the_line_says_what_to_do(monkeypatch):
    words = (
        r"source hf:nobody/nothing.* must be a directory, or a name .* cache has: {}; where no hub"
    )
    with pytest.raises(UsageError, match=words.format("no network in tests")):
        load_hugging_face("nobody/nothing", 4, "stretch")
    monkeypatch.setattr(hub_answer, "_DEADLINE", 0.1)
    silent = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: silent.wait())
    with pytest.raises(UsageError, match=words.format(r"no answer in 0\.1 seconds")):
        load_hugging_face("nobody/nothing,config", 4, "stretch")
    silent.set()
    assert not config.HF_HUB_OFFLINE


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"datasets must be installed .* 'jaxlt\[hf\]'"):
        load_hugging_face("nobody/nothing", 4, "stretch")
