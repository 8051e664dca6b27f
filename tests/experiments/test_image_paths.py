"""Which image files a user means."""

from pathlib import Path

import pytest

from experiments.image_paths import check_is_no_image, find_images, shown, source_of
from jaxlt import UsageError

FILES = ["a/1.png", "a/2.JPG", "a/notes.txt", "b/deep/3.webp", "c/@eaDir/4.png", "c/.hidden/5.png"]
FILES += ["c/__MACOSX/6.png", "c/._7.png", "c/Thumbs.db", "[8].png", "9.png"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a"], ["a/1.png", "a/2.JPG"]),
        (["b", "9.png", "a/notes.txt"], ["b/deep/3.webp", "9.png", "a/notes.txt"]),
        (["[ab]"], ["a/1.png", "a/2.JPG", "b/deep/3.webp"]),
        (["**/*.png"], ["9.png", "[8].png", "a/1.png"]),
        (["[8].png"], ["[8].png"]),
        (["[0-9].png"], ["9.png"]),
        (["c/._7.png"], ["c/._7.png"]),
    ],
)
def test_paths_directories_and_patterns(tree, words, found):
    assert [str(path) for path in find_images(words)] == found
    at_home = [f"~/{word}" for word in words]
    assert [str(path.relative_to(tree)) for path in find_images(at_home)] == found


@pytest.mark.parametrize("word", ["", "c", "no.png", "*.gif", "c/**", "~nobody/1.png"])
def test_a_word_for_nothing_is_refused(tree, word):
    with pytest.raises(UsageError, match=r"^IMAGE must be"):
        find_images([word])


def test_a_link_back_brings_no_other_images(tree, caplog):
    (tree / "b/deep/up").symlink_to("../..")
    assert [str(path) for path in find_images(["b"])] == ["b/deep/3.webp"]
    assert "1 link to a directory that is searched anyway" in caplog.text


def test_what_is_passed_over_is_said(tree, caplog):
    find_images(["."])
    assert "passed over in .: " in caplog.text
    assert "1 .txt" in caplog.text


def test_a_path_is_shown_in_one_line():
    assert shown(Path("é ok.png")) == "é ok.png"
    assert shown("a\nb") == "a\\nb"
    assert shown("\udcff.png") == "\\xff.png"


def test_no_table_takes_the_place_of_an_image(tree):
    (tree / "link.csv").symlink_to(tree / "9.png")
    for name in ("a/2.JPG", "link.csv"):
        with pytest.raises(UsageError, match=r"csv must be a file of its own, got .*; give a path"):
            check_is_no_image(tree / name, "csv")
    with pytest.raises(UsageError, match=r"jsonl must be a file of its own"):
        check_is_no_image(tree / "a/notes.txt", "jsonl", [tree / "a/notes.txt"])
    check_is_no_image(tree / "a/notes.txt", "csv")
    check_is_no_image(tree / "new.png", "csv")


def test_a_directory_is_a_source(tree):
    (tree / "digits").mkdir()
    found = [source_of(word) for word in ("a", "~/a", "folder:a", "idx:b", "digits", "9.png", "")]
    assert found == ["folder:a", "folder:~/a", "folder:a", "idx:b", "folder:digits", "9.png", ""]
