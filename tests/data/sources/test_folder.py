import os
import shutil
from unicodedata import normalize

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
    with pytest.raises(UsageError, match="absent must be a directory, got none"):
        load_folder(directory / "absent", 8)


def test_an_empty_class_is_named(directory):
    dog = directory / "train" / "dog"
    dog.mkdir()
    with pytest.raises(UsageError, match=r"train/dog must hold an image \(.*\.webp\), got none"):
        load_folder(directory, 8)
    for name in ("a.heic", "b.HEIC", "c"):
        (dog / name).touch()
    with pytest.raises(UsageError, match=r"got 2 \.heic, 1 without a suffix; remove the directory"):
        load_folder(directory, 8)


def test_an_empty_class_of_another_part_is_said(directory, caplog):
    whole = load_folder(directory, 8)
    touch(directory, "test/ant/a.txt", "val/cat/a.txt", "train/ant/b.txt")
    loaded = load_folder(directory, 8)
    assert loaded.class_names == whole.class_names
    assert paths_of(loaded.test) == paths_of(whole.test)
    assert loaded.val is None
    assert "3 .txt, 1 class directory ant without images, 1 directory val without" in caplog.text


def test_a_part_that_a_scaffold_left_empty_is_none(directory, caplog):
    shutil.rmtree(directory / "test")
    whole = load_folder(directory, 8)
    (directory / "test").mkdir()
    for name in ("cat", "dog"):
        (directory / "val" / name).mkdir(parents=True)
    loaded = load_folder(directory, 8)
    assert paths_of(loaded.train) == paths_of(whole.train)
    assert (len(loaded.test.labels), loaded.val) == (0, None)
    assert "1 directory test without images, 1 directory val without images" in caplog.text


@pytest.mark.parametrize("part", ["Test", "val"])
def test_images_of_no_class_beside_train_are_refused_with_the_remedy(directory, part):
    shutil.rmtree(directory / "test")
    touch(directory, f"{part}/1.png", f"{part}/2.png")
    said = f"{part} must hold one directory a class, got 2 .png beside the directories; move or "
    with pytest.raises(UsageError, match=f"{said}rename {part} .* experiments.predict RUN DIR"):
        load_folder(directory, 8)


def test_a_part_without_classes_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="train must hold one directory a class, got none"):
        load_folder(tmp_path, 8)


def test_an_unknown_test_class_is_named(directory):
    write_image(directory / "test" / "dog" / "a.png", (5, 5), 0)
    with pytest.raises(UsageError, match=r"test must have the classes of .*train, got 'dog'"):
        load_folder(directory, 8)


def paths_of(images):
    return [images.name(number) for number in range(len(images.labels))]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_all_that_can_be_decoded_is_found_also_below_a_class(tmp_path, caplog):
    found = ["1.webp", "2.GIF", "3.tiff", "4.jfif", "5.TIF", "deep/6.Jpg", "deep/er/7.png"]
    touch(tmp_path, *(f"train/cat/{name}" for name in found), "train/ant/a.bmp")
    touch(
        tmp_path, "train/cat/x.heic", "train/ant/y.heic", "train/notes.txt", "list.csv", "s/x.csv"
    )
    caplog.set_level("INFO")
    loaded = load_folder(tmp_path, 8)
    assert loaded.class_names == ("ant", "cat")
    assert paths_of(loaded.train) == [
        str(tmp_path / "train" / name) for name in ("ant/a.bmp", *(f"cat/{x}" for x in found))
    ]
    assert caplog.messages == [
        f"{tmp_path}: 2 images lie in directories of a class and count as of that class",
        f"passed over in {tmp_path}: 5 entries: 2 .heic, 1 .csv, 1 .txt, 1 directory s",
    ]


def test_clutter_is_no_class_and_no_image(tmp_path, caplog):
    for part in ("train", "test"):
        touch(tmp_path / part, *(f"{name}/a.png" for name in ("cat", "dog")))
    touch(
        tmp_path, *(f"train/{name}/a.png" for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"))
    )
    touch(tmp_path, *(f"train/cat/{name}" for name in ("._a.png", "@eaDir/b.png", "Thumbs.db")))
    touch(tmp_path, *(f"test/cat/{name}@SynoEAStream" for name in ("a.png", "b.png", "c.png")))
    touch(tmp_path, *(f"test/{name}/a.png" for name in ("__pycache__", "#snapshot")))
    left = ["@Recently-Snapshot", "@sharebin", "@tmp", "FOUND.000", "RECYCLER", "_vti_cnf", "CVS"]
    left += ["Network Trash Folder", "Temporary Items", "_gsdata_"]
    touch(tmp_path, *(f"train/{name}/a.png" for name in left))
    touch(tmp_path, "test/cat/~$b.png", "test/dog/~syncthing~b.png.tmp")
    touch(tmp_path, "train/.DS_Store", "test/.ipynb_checkpoints/c/a.png", "__MACOSX/train/x/a.png")
    loaded = load_folder(tmp_path, 8)
    assert loaded.class_names == ("cat", "dog")
    assert paths_of(loaded.train) == [str(tmp_path / f"train/{x}/a.png") for x in ("cat", "dog")]
    assert len(loaded.test.labels) == 2
    (line,) = caplog.messages
    assert line.startswith(
        f"passed over in {tmp_path}: 26 entries: 4 hidden, 3 @SynoEAStream, 2 @eaDir, 2 __MACOSX, "
        "1 #snapshot, 1 @Recently-Snapshot, 13 others"
    )


@pytest.mark.parametrize("name", ["@home", "found.object", "cvs2", "vti", "~a", "Trash", "thumbs"])
def test_what_merely_resembles_clutter_is_a_class(tmp_path, name):
    touch(tmp_path, f"{name}/a.png", "dog/a.png")
    assert set(load_folder(tmp_path, 8).class_names) == {name, "dog"}


def test_suffixes_are_named_before_clutter(tmp_path, caplog):
    clutter = [f"{name}{place}" for place in range(2) for name in (".a", ".b.png", ".DS_Store")]
    touch(tmp_path, *(f"cat/{name}" for name in ("a.png", "@eaDir/b", "a.txt", "b", *clutter)))
    touch(tmp_path, "dog/b.png", "dog/new.li\nne")
    load_folder(tmp_path, 8)
    said = "1 .li\\nne, 1 .txt, 1 without a suffix, 6 hidden, 1 @eaDir"
    assert caplog.messages == [f"passed over in {tmp_path}: 10 entries: {said}"]


def test_there_may_be_a_validation_part_and_no_test_part(tmp_path):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "Dev/dog/c.png")
    loaded = load_folder(tmp_path, 8)
    assert paths_of(loaded.val) == [str(tmp_path / "Dev/dog/c.png")]
    assert loaded.val.labels.tolist() == [1]
    assert (loaded.test.labels.shape, loaded.test.image_shape) == ((0,), (8, 8, 3))
    touch(tmp_path, "val/dog/c.png")
    with pytest.raises(UsageError, match="must hold one val, got Dev and val"):
        load_folder(tmp_path, 8)


def test_classes_alone_are_of_training_images(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/b.png", "read me.txt")
    loaded = load_folder(tmp_path, 8)
    assert (loaded.class_names, loaded.train.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert (len(loaded.test.labels), loaded.val) == (0, None)
    touch(tmp_path, "test/cat/a.png")
    with pytest.raises(
        UsageError, match="must hold train beside test, or classes alone, got none; rename"
    ):
        load_folder(tmp_path, 8)


def test_a_folder_around_the_folder_is_named(tmp_path):
    touch(tmp_path, "photos/cat/a.png", "photos/dog/b.png")
    with pytest.raises(UsageError, match=f"got photos alone; .* give folder:{tmp_path}/photos$"):
        load_folder(tmp_path, 8)


@pytest.mark.parametrize("inner", ["train", "images"])
def test_a_folder_around_the_classes_of_a_part_is_named(tmp_path, inner):
    touch(tmp_path, *(f"train/{inner}/{name}/a.png" for name in ("cat", "dog")))
    touch(tmp_path, *(f"test/{inner.replace('train', 'test')}/{name}/b.png" for name in ("cat",)))
    with pytest.raises(
        UsageError, match=f"got {inner} alone; if the classes are in it, move them up into .*train$"
    ):
        load_folder(tmp_path, 8)


@pytest.mark.parametrize(
    "names",
    [
        ("training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"),
        ("seg_train/seg_train/sea", "seg_test/seg_test/sea", "seg_pred/seg_pred"),
        ("trainval/cat", "trainval/dog", "testset/cat", "testset/dog"),
        ("1 Train/cat", "2 Validation/cat"),
    ],
)
def test_parts_of_other_names_are_not_taken_for_classes(tmp_path, names):
    touch(tmp_path, *(f"{name}/a.png" for name in names))
    with pytest.raises(UsageError, match=r"got .*, none with an image of its own; rename them"):
        load_folder(tmp_path, 8)


@pytest.mark.parametrize(
    "names",
    [
        ("cat/2021", "cat/2022", "dog/2021", "dog/2022"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("train_set", "train_set/deep", "test_set/deep"),
        ("carnival/deep", "strainer/deep", "contest/deep"),
        ("freight train/2021", "passenger train/2021"),
    ],
)
def test_classes_may_hold_directories_of_the_same_names(tmp_path, names):
    touch(tmp_path, *(f"{name}/a.png" for name in names))
    loaded = load_folder(tmp_path, 8)
    assert loaded.class_names == tuple(sorted({name.split("/")[0] for name in names}))
    assert len(loaded.train.labels) == len(names)


def test_no_class_is_lost_beside_one_called_train(tmp_path):
    touch(tmp_path, "train/steam/a.png", "train/diesel/b.png", "plane/jet/c.png", "car/d.png")
    said = "no images beside train alone, got those of car, plane; rename train if it is a class"
    with pytest.raises(UsageError, match=said):
        load_folder(tmp_path, 8)
    for name in ("steam", "diesel"):
        shutil.rmtree(tmp_path / "train" / name)
    touch(tmp_path, "train/a.png")
    with pytest.raises(UsageError, match=said):
        load_folder(tmp_path, 8)


def test_other_directories_beside_train_and_test_are_passed_over(directory, caplog):
    touch(directory, "masks/a.png")
    assert load_folder(directory, 8).class_names == ("ant", "cat")
    assert "1 directory masks" in caplog.text


@pytest.mark.parametrize("place", ["train", "."])
def test_a_file_in_place_of_a_directory(tmp_path, place):
    root = tmp_path / "root"
    touch(tmp_path, f"root/{place}" if place != "." else "root")
    match = "must be a directory, got a file" if place == "." else "must hold one directory a class"
    with pytest.raises(UsageError, match=match):
        load_folder(root, 8)


STRANGE = [
    *("two words", "Äpfel", "Äpfel".encode().decode("latin-1"), "\u00e9", "a,b"),
    *("#1", "100%", "-x", "'q\"", "dots..", "x.png", "new\nline", "\U0001f600", "n" * 250),
]


def test_any_name_is_read(tmp_path):
    """Names of classes and files, also of files whose names are no UTF-8."""
    raw = os.fsdecode(b"\xe9t\xe9")
    for number, name in enumerate([*STRANGE, raw]):
        of_class = name if name != raw else "ete"
        write_image(tmp_path / "train" / of_class / f"{name[:240]}.png", (4, 4), 10 * number)
    write_image(tmp_path / "train" / "ete" / raw / f"{raw}.png", (4, 4), 10 * len(STRANGE))
    loaded = load_folder(tmp_path, 4)
    assert loaded.class_names == tuple(sorted([*STRANGE, "ete"]))
    pixels = loaded.train.load(np.arange(len(loaded.train.labels)))
    for label, pixel in zip(loaded.train.labels, pixels[:, 0, 0, 0], strict=True):
        assert ([*STRANGE, "ete"][pixel // 10]) == loaded.class_names[label]
    write_image(tmp_path / "train" / raw / "a.png", (4, 4), 0)
    with pytest.raises(UsageError, match=r"train/\\udce9t\\udce9 must have a name in UTF-8"):
        load_folder(tmp_path, 4)


def test_a_class_is_found_in_another_part_whatever_the_form_of_its_accents(tmp_path, caplog):
    touch(tmp_path, "train/\u00e9/a.png", "train/Cat/b.png", "test/e\u0301/c.png", "test/Cat/d.png")
    loaded = load_folder(tmp_path, 8)
    assert loaded.class_names == ("Cat", "\u00e9")
    assert loaded.test.labels.tolist() == [0, 1]
    assert paths_of(loaded.test)[1] == str(tmp_path / "test/e\u0301/c.png")
    assert caplog.messages == []
    touch(tmp_path, "test/cat/d.png")
    with pytest.raises(UsageError, match=r"test must have the classes of .*train, got 'cat'"):
        load_folder(tmp_path, 8)


def test_classes_whose_names_look_alike_are_said(tmp_path, caplog):
    touch(tmp_path, *(f"{name}/a.png" for name in ("cat", "Cat", "cat ", "\u00e9", "x")))
    assert len(load_folder(tmp_path, 8).class_names) == 5
    (cats,) = caplog.messages
    assert "'Cat' and 'cat' and 'cat ' are different classes" in cats
    touch(tmp_path, "e\u0301/a.png")
    with pytest.raises(UsageError, match="must have different names, got two called \u00e9"):
        load_folder(tmp_path, 8)


def test_names_in_either_form_of_unicode_are_the_same_data_in_the_same_order(tmp_path):
    # The order of the forms that file systems keep: e and its accent come before f.
    names = ("\u00e9t\u00e9", "fox", "zoo")
    images = ("\u00e9.png", "f.png")
    found = {}
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        touch(root, *(normalize(form, f"{name}/{image}") for name in names for image in images))
        loaded = load_folder(root, 8)
        assert loaded.class_names == ("fox", "zoo", "\u00e9t\u00e9")
        paths = [os.path.relpath(path, root) for path in paths_of(loaded.train)]
        found[form] = [normalize("NFC", path) for path in paths]
    assert found["NFC"] == found["NFD"]


def test_a_root_may_have_any_name(tmp_path, monkeypatch):
    root = tmp_path / os.fsdecode(b"\xe9t\xe9")
    write_image(root / "train" / "x" / "a.png", (4, 4), 7)
    assert (
        load_folder(root, 4).train.load(np.array([0])).tolist() == np.full((1, 4, 4, 3), 7).tolist()
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "photos/train/x/a.png")
    loaded = load_source("folder:~/photos", normalization="imagenet")
    assert paths_of(loaded.train) == [str(tmp_path / "photos/train/x/a.png")]


def test_links_elsewhere_are_followed_and_circles_end(tmp_path, caplog):
    touch(tmp_path, "root/train/cat/a.png", "root/train/dog/b.png", "elsewhere/deep/c.png")
    train = tmp_path / "root" / "train"
    (tmp_path / "elsewhere/deep/up").symlink_to("..")
    (train / "dog/more").symlink_to(tmp_path / "elsewhere")
    (train / "dog/gone.png").symlink_to("nothing")
    (train / "dog/me.png").symlink_to("me.png")
    loaded = load_folder(tmp_path / "root", 8)
    assert loaded.train.labels.tolist() == [0, 1, 1]
    assert "2 .png that leads nowhere" in caplog.text


@pytest.mark.parametrize("target", [".", "..", "../dog", "../dog/deep", "../..", "../../test/dog"])
def test_a_link_brings_no_image_of_another_class(tmp_path, caplog, target):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "train/dog/deep/c.png", "test/dog/d.png")
    (tmp_path / "train/cat/link").symlink_to(target)
    loaded = load_folder(tmp_path, 8)
    assert loaded.train.labels.tolist() == [0, 1, 1]
    assert "1 entry: 1 link to a directory that is searched anyway" in caplog.text


@pytest.mark.parametrize(
    ("link", "target"),
    [("train/kitty", "cat"), ("train/all", "."), ("test", "train"), ("test/dog", "../train/cat")],
)
def test_a_class_that_is_a_link_to_another_is_refused(tmp_path, link, target):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png")
    if link == "test/dog":
        touch(tmp_path, "test/cat/c.png")
    (tmp_path / link).symlink_to(target)
    with pytest.raises(UsageError, match=r"must have images of their own, got .* and .*; remove"):
        load_folder(tmp_path, 8)


def test_parts_and_classes_may_be_links(tmp_path):
    touch(tmp_path, "there/cats/a.png", "there/dogs/b.png", "root/train/x/y.png", "eval/cat/c.png")
    (tmp_path / "root/train/x/y.png").unlink()
    (tmp_path / "root/train/x").rmdir()
    for name in ("cat", "dog"):
        (tmp_path / "root/train" / name).symlink_to(tmp_path / f"there/{name}s")
    for name in ("val", "test"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "eval")
    loaded = load_folder(tmp_path / "root", 8)
    assert loaded.train.labels.tolist() == [0, 1]
    assert loaded.val.labels.tolist() == loaded.test.labels.tolist() == [0]
