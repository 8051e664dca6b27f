"""CIFAR as published: the same images from each form, and from tensorflow-datasets."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
from cifar_files import DIRECTORIES, NAMES, archive_of, files_of, images_of, python2_pickle
from tfds_files import write_known

from jaxlt.data import load_source, long_tailed_split
from jaxlt.data.sources import cifar
from jaxlt.data.sources.cifar import load_cifar
from jaxlt.data.sources.cifar_pickles import read_pickle
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

FORMS = list(DIRECTORIES)
TRAIN, TEST = 200, 100


def python3_pickle(protocol):
    def pickled(values):
        return pickle.dumps({name.encode(): value for name, value in values.items()}, protocol)

    return pickled


@pytest.fixture(scope="module")
def images():
    made = {}
    for num_classes in (10, 100):
        made[num_classes] = [images_of(num_classes, TRAIN // num_classes, 0)]
        made[num_classes].append(images_of(num_classes, TEST // num_classes, 1))
    return made


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """As if so few images were published."""
    monkeypatch.setattr(cifar, "PUBLISHED", {"training": TRAIN, "test": TEST})


def write(directory, files):
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def check(loaded, num_classes, images):
    assert loaded.class_names == NAMES[num_classes]
    for found, (pixels, labels) in zip((loaded.train, loaded.test), images, strict=True):
        assert found.labels.tolist() == labels.tolist()
        np.testing.assert_array_equal(found.load(np.arange(len(labels))), pixels)


def test_the_handmade_pickles_are_python_2s(images):
    """Python's own unpickler reads what the tests write for it."""
    pixels, labels = images[10][0]
    values = {"data": pixels.reshape(len(labels), -1), "labels": labels.tolist(), "n": 70_000}
    found = pickle.loads(python2_pickle(values), encoding="latin1")
    np.testing.assert_array_equal(found.pop("data"), values.pop("data"))
    assert found == values


@pytest.mark.parametrize(("num_classes", "form"), FORMS)
def test_each_form_gives_the_images_in_the_order_of_its_files(tmp_path, images, num_classes, form):
    files = files_of(num_classes, form, *images[num_classes])
    name = DIRECTORIES[num_classes, form]
    for mode in ("w:gz", "w"):
        archive = tmp_path / f"any name {mode[2:]}.tgz"
        archive.write_bytes(archive_of(files, name, mode))
        check(load_cifar(archive, None), num_classes, images[num_classes])
    directory = write(tmp_path / "data" / name, files)
    check(load_cifar(directory, None), num_classes, images[num_classes])
    # What torchvision leaves: the archive beside its directory.
    (tmp_path / "data" / f"{name}.tar.gz").write_bytes(archive.read_bytes())
    check(load_cifar(tmp_path / "data", None), num_classes, images[num_classes])


def test_a_directory_of_one_archive(tmp_path, images):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(
        archive_of(files_of(10, "python", *images[10]), "cifar-10-batches-py")
    )
    check(load_cifar(tmp_path, None), 10, images[10])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_later_pythons(tmp_path, images, protocol):
    files = files_of(10, "python", *images[10], pickled=python3_pickle(protocol))
    check(load_cifar(write(tmp_path / "data", files), None), 10, images[10])


def test_arrays_by_columns():
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    found = read_pickle(pickle.dumps({"data": array}, 2), "file")
    np.testing.assert_array_equal(found["data"], array)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_a_long_tailed_split_is_that_of_tensorflow_datasets(
    tmp_path, monkeypatch, images, num_classes
):
    import_tensorflow()
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    splits = {}
    for split, (pixels, labels) in zip(("train", "test"), images[num_classes], strict=True):
        splits[split] = [
            {"image": image, "label": int(label), "id": f"{split}_{number:05d}"}
            | ({"coarse_label": 0} if num_classes == 100 else {})
            for number, (image, label) in enumerate(zip(pixels, labels, strict=True))
        ]
    write_known(tfds, tmp_path, f"cifar{num_classes}", f"Cifar{num_classes}", splits)
    files = files_of(num_classes, "binary", *images[num_classes])
    place = write(tmp_path / "published", files)
    ours = load_source(f"cifar:{place}")
    theirs = load_source(f"tfds:cifar{num_classes}")
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert ours.mean == (0.4914, 0.4822, 0.4465)
    selected = []
    for source in (ours, theirs):
        split = long_tailed_split(source, imbalance_factor=2.0)
        selected.append((split.class_counts, source.train.load(split.indices)))
    assert selected[0][0] == selected[1][0]
    np.testing.assert_array_equal(selected[0][1], selected[1][1])


@pytest.mark.parametrize(("part", "whole"), [("train", "200 training"), ("test", "100 test")])
def test_a_file_that_is_cut_between_two_images_is_refused(tmp_path, images, part, whole):
    files = files_of(100, "binary", *images[100])
    files[f"{part}.bin"] = files[f"{part}.bin"][:-3074]
    with pytest.raises(UsageError, match=f"must hold the {whole} images of CIFAR-100 in b.*, got"):
        load_cifar(write(tmp_path / "data", files), None)


def test_without_names_the_classes_are_numbers(tmp_path, images, caplog):
    files = files_of(10, "binary", *images[10])
    del files["batches.meta.txt"]
    loaded = load_cifar(write(tmp_path / "data", files), None)
    assert loaded.class_names == tuple("0123456789")
    assert "no batches.meta.txt: classes are called by their numbers" in caplog.text


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def cut(name, count):
    def damage(files):
        files[name] = files[name][:-count]

    return damage


def put(name, content):
    def damage(files):
        files[name] = content

    return damage


def without(*names):
    def damage(files):
        for name in names:
            del files[name]

    return damage


ONE = np.zeros((1, 3072), np.uint8)


@pytest.mark.parametrize(
    ("form", "damage", "words"),
    [
        ("python", without("data_batch_3"), "all files of CIFAR-10 for Python, got no data_b.*_3"),
        ("binary", without("test_batch.bin"), "all files of CIFAR-10 in binary, got no test_b"),
        ("binary", cut("data_batch_2.bin", 1), r"data_batch_2.bin of .* 3073 bytes each .* got"),
        ("binary", put("data_batch_2.bin", b""), "data_batch_2.bin of .* got 0 bytes"),
        ("python", cut("data_batch_2", 1), "data_batch_2 of .* must be a pickle of CIFAR's"),
        ("python", put("test_batch", b"\x80\x02]."), "test_batch of .* it is of a list"),
        ("python", put("test_batch", b""), "test_batch of .* must be a pickle"),
        ("python", put("test_batch", pickle.dumps({"data": Harm()}, 2)), "print was called"),
        (
            "python",
            put("test_batch", python2_pickle({"data": ONE, "labels": [1, 2]})),
            r"must have 3072 bytes and a label .* array of \(1, 3072\) and 2 labels",
        ),
        (
            "python",
            put("test_batch", python2_pickle({"data": ONE[:, 1:], "labels": [1]})),
            r"array of \(1, 3071\) and 1 labels",
        ),
        (
            "python",
            put("test_batch", python2_pickle({"data": ONE, "fine_labels": [1]})),
            "an array under data and a list under labels",
        ),
        (
            "python",
            put("test_batch", python2_pickle({"data": ONE, "labels": [-1]})),
            "labels of 0 to 255",
        ),
        (
            "python",
            put("test_batch", pickle.dumps({"data": ONE.astype(np.int16)}, 2)),
            "an array is not of bytes",
        ),
        ("python", put("batches.meta", b"\x80\x02}."), "list of names under label_names"),
        ("binary", put("batches.meta.txt", b"cat\n" * 10), "each of 10 classes once, got 10 names"),
        ("binary", put("batches.meta.txt", b"\xff"), "must be UTF-8 text"),
    ],
)
def test_damaged_files_end_in_one_line(tmp_path, images, capsys, form, damage, words):
    files = files_of(10, form, *images[10])
    damage(files)
    with pytest.raises(UsageError, match=words):
        load_cifar(write(tmp_path / "data", files), None)
    archive = tmp_path / "archive"
    archive.write_bytes(archive_of(files, "cifar"))
    with pytest.raises(UsageError, match=words):
        load_cifar(archive, None)
    assert capsys.readouterr().out == ""


def test_damaged_archives_end_in_one_line(tmp_path, images):
    whole = archive_of(files_of(10, "binary", *images[10]), "cifar-10-batches-bin")
    tar = gzip.decompress(whole)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path = tmp_path / "cifar.tar.gz"
    for content, words in (
        (whole[: len(whole) // 2], "whole tar archive"),
        (whole[:-4], "whole tar archive"),
        (bytes(flipped), "whole tar archive"),
        (tar[: len(tar) // 2], "whole tar archive, .*anew|all files of CIFAR-10 in binary"),
        (b"", "whole tar archive"),
        (b"no archive", r"whole tar archive, .*, got 10 bytes that are none: .*; get it anew"),
        (b"\xff\xd8" * 300, r"whole tar archive, .*, got an image: .*; get it anew"),
        (gzip.compress(b"no archive" * 100), "whole tar archive"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            load_cifar(path, None)
    with pytest.raises(UsageError, match=r"CIFAR file .*nowhere must be readable: No such file"):
        load_cifar(tmp_path / "nowhere", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="archive or directory of CIFAR-10 or CIFAR-100 as publ"):
        load_cifar(tmp_path / "empty", None)


def test_nothing_of_an_archive_reaches_the_disk(tmp_path, images, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    files = files_of(10, "binary", *images[10])
    archive = inside / "cifar.tar.gz"
    archive.write_bytes(archive_of(files, "../../outside"))
    check(load_cifar(archive, None), 10, images[10])
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as links:
        for name in files:
            member = tarfile.TarInfo(f"cifar/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            links.addfile(member)
    archive.write_bytes(content.getvalue())
    with pytest.raises(UsageError, match="got none of their files"):
        load_cifar(archive, None)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", inside, archive]


def test_two_data_sets_in_one_place(tmp_path, images):
    for num_classes, form in ((10, "python"), (100, "python")):
        files = files_of(num_classes, form, *images[num_classes])
        write(tmp_path / DIRECTORIES[num_classes, form], files)
        name = f"{DIRECTORIES[num_classes, form]}.tar.gz"
        (tmp_path / name).write_bytes(archive_of(files, "a"))
    with pytest.raises(UsageError, match=r"one data set, got CIFAR-10 .* CIFAR-100 .*; name one"):
        load_cifar(tmp_path, None)
    for directory in list(tmp_path.iterdir()):
        if directory.is_dir():
            directory.rename(tmp_path.parent / f"moved {directory.name}")
    with pytest.raises(UsageError, match=r"one archive, got .*; name one of them"):
        load_cifar(tmp_path, None)
