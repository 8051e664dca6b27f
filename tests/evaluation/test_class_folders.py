import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxlt.errors import UsageError
from jaxlt.evaluation.class_folders import _labels, find_class_folders, find_corruption_tree
from jaxlt.evaluation.corruptions import CORRUPTIONS, SEVERITIES


def make(directory, *names, suffix=".JPEG"):
    for name in names:
        (directory / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (4, 4)).save(directory / name / f"{number}{suffix}", format="JPEG")
    return directory


def test_directories_are_matched_by_class_name(tmp_path):
    make(tmp_path, "owl", "cat")
    (tmp_path / "owl" / "notes.txt").write_text("")
    found = find_class_folders(tmp_path, ["dog", "owl", "cat"])
    np.testing.assert_array_equal(found.labels, [1, 1, 2, 2])
    assert [path.parent.name for path in found.paths] == ["owl", "owl", "cat", "cat"]
    (tmp_path / "owl").rename(tmp_path / "cha\u0302t")
    found = find_class_folders(tmp_path, ["dog", "ch\u00e2t", "cat"])
    np.testing.assert_array_equal(found.labels, [1, 1, 2, 2])


def test_the_files_are_those_that_training_finds(tmp_path, caplog):
    images = ["cat/a.WEBP", "cat/b.gif", "cat/deep/c.tiff", "dog/d.jfif"]
    others = ["cat/._a.jpg", "cat/@eaDir/e.jpg", "dog/f.heic", ".ipynb_checkpoints/g.jpg"]
    for name in images + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_class_folders(tmp_path, ["cat", "dog"])
    assert found.paths == [tmp_path / name for name in images]
    assert found.labels.tolist() == [0, 0, 0, 1]
    named = "1 .heic, 2 hidden, 1 @eaDir"
    assert caplog.messages == [f"passed over in {tmp_path}: 4 entries: {named}"]


def test_a_link_from_class_to_class_is_not_followed(tmp_path):
    make(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "friend").symlink_to("../dog")
    assert find_class_folders(tmp_path, ["cat", "dog"]).labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "owl").symlink_to("cat")
    with pytest.raises(UsageError, match=r"images of their own, got .*cat and .*owl, which share"):
        find_class_folders(tmp_path, ["cat", "dog", "owl"])


def test_numbered_directories_are_labels_in_numeric_order(tmp_path):
    make(tmp_path, *map(str, range(12)))
    names = [f"n{number:08d}" for number in range(12)]
    found = find_class_folders(tmp_path, names)
    np.testing.assert_array_equal(found.labels, np.repeat(np.arange(12), 2))
    # In alphabetic order the third directory would be 10.
    assert [int(path.parent.name) for path in found.paths] == found.labels.tolist()


def test_numbers_may_be_those_of_before_the_classes_were_sorted(tmp_path):
    make(tmp_path, "0", "1", "2")
    found = find_class_folders(tmp_path, ["cat", "dog", "owl"], [2, 0, 1])
    assert [path.parent.name for path in found.paths] == ["2", "2", "0", "0", "1", "1"]
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_names_that_are_numbers_are_names_first(tmp_path):
    """The classes of an image folder are in the order of their names: 0, 1, 10, 2."""
    make(tmp_path, "0", "1", "2", "10")
    found = find_class_folders(tmp_path, ["0", "1", "10", "2"])
    assert [path.parent.name for path in found.paths[::2]] == ["0", "1", "10", "2"]
    np.testing.assert_array_equal(found.labels[::2], [0, 1, 2, 3])


@given(numbers=st.permutations(range(30)))
def test_any_order_of_numbered_directories_gives_their_numbers(numbers):
    names = [f"class {n}" for n in range(30)]
    assert _labels([str(n) for n in numbers], names, None, None) == list(numbers)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "cow"], "must be named after classes of the run .*, got cow"),
        (["0", "3"], "must be named after .* or numbered 0..2, got 0"),
        (["1", "01"], "got two of one"),
    ],
)
def test_classes_that_the_run_does_not_have(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(UsageError, match=message):
        find_class_folders(tmp_path, ["cat", "dog", "owl"])


def test_wrong_folders(tmp_path):
    with pytest.raises(UsageError, match="must be a directory"):
        find_class_folders(tmp_path / "none", ["cat"])
    with pytest.raises(UsageError, match="one directory a class, got none"):
        find_class_folders(tmp_path, ["cat"])
    (tmp_path / "cat").mkdir()
    with pytest.raises(UsageError, match="got none"):
        find_class_folders(tmp_path, ["cat"])


def tree(directory, corruptions):
    for name in corruptions:
        for severity in SEVERITIES:
            make(directory / name / str(severity), "cat", "dog")
    return directory


def test_a_corruption_tree_in_the_papers_order(tmp_path):
    tree(tmp_path, ["fog", "spatter", "gaussian_noise"])
    found = find_corruption_tree(tmp_path, ["cat", "dog"])
    assert list(found) == ["gaussian_noise", "fog", "spatter"]
    assert list(found["fog"]) == list(SEVERITIES)
    for name, severities in found.items():
        for severity, files in severities.items():
            assert {path.parts[-4:-2] for path in files.paths} == {(name, str(severity))}
            np.testing.assert_array_equal(files.labels, [0, 0, 1, 1])


def test_what_lies_beside_corruptions_and_severities_is_counted(tmp_path, caplog):
    tree(tmp_path, ["fog"])
    (tmp_path / "notes.txt").touch()
    (tmp_path / "fog" / ".DS_Store").touch()
    find_corruption_tree(tmp_path, ["cat", "dog"])
    assert f"passed over in {tmp_path}: 2 entries: 1 .txt, 1 hidden" in caplog.messages


def test_wrong_trees(tmp_path):
    tree(tmp_path, CORRUPTIONS[:2])
    (tmp_path / "cat").mkdir()
    with pytest.raises(UsageError, match="cat must be named after a corruption"):
        find_corruption_tree(tmp_path, ["cat", "dog"])
    (tmp_path / "cat").rmdir()
    make(tmp_path / "gaussian_noise" / "6", "cat")
    with pytest.raises(UsageError, match="must hold the severities 1 to 5, got 1, 2, 3, 4, 5"):
        find_corruption_tree(tmp_path, ["cat", "dog"])
