import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.sources.list_lines import (
    class_names,
    missing_images,
    outside_labels,
    read_list,
    refuse,
)
from jaxlt.errors import UsageError


def write(path, text):
    path.write_bytes(text.encode())
    return path


def parsed(path):
    listed, bad = read_list(path)
    assert bad == []
    return list(zip(listed.images, listed.labels.tolist(), listed.lines.tolist(), strict=True))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_are_paths_and_labels(tmp_path, newline, last):
    text = f"train/a.JPEG 3{newline}b/c.jpg\t-1" + newline * last
    path = write(tmp_path / "list.txt", text)
    assert parsed(path) == [("train/a.JPEG", 3, 1), ("b/c.jpg", -1, 2)]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = write(tmp_path / "list.txt", "\ufeffa 0\n\n  \nb 1\n\n")
    assert parsed(path) == [("a", 0, 1), ("b", 1, 4)]


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z]{1,3}(/[a-z.]{0,3}[a-z])?", fullmatch=True), st.integers(-1, 99)
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    ),
)
def test_the_fast_parser_agrees_with_the_one_that_explains(tmp_path_factory, rows):
    directory = tmp_path_factory.mktemp("lists")
    text = "".join(f"{image} {label}\n" for image, label in rows)
    fast, slow = (
        parsed(write(directory / name, body)) for name, body in (("a", text), ("b", text + "\n\n"))
    )
    assert fast == slow == [(*row, number) for number, row in enumerate(rows, start=1)]


BAD_LINES = {
    "alone": "must have a path and a label, got 'alone'",
    "a b c": "label must be a number, got 'c'",
    "7": "must have a path and a label, got '7'",
    "a,b": "must have a path and a label, got 'a,b'",
    "a,1.5": "must have a path and a label, got 'a,1.5'",
    '"" 1': "must have a path and a label, got '1'",
    "a x": "label must be a number, got 'x'",
    "a 1.5": "label must be a number, got '1.5'",
    "/etc/passwd 1": "path must be relative and without . or .., got '/etc/passwd'",
    "../a 1": "path must be relative and without . or .., got '../a'",
    "a/../b 1": "path must be relative and without . or .., got 'a/../b'",
    "a/.. 1": "path must be relative and without . or .., got 'a/..'",
    "././a 1": "path must be relative and without . or .., got './a'",
    "./good 1": "path must be new, got 'good' of line 1",
    "a//b 1": "path must be relative and without . or .., got 'a//b'",
    "good 1": "path must be new, got 'good' of line 1",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items())
def test_a_bad_line_is_explained_and_the_others_are_read(tmp_path, line, reason):
    path = write(tmp_path / "list.txt", f"good 0\n{line}\nlast 1\n")
    listed, bad = read_list(path)
    assert bad == [(path, 2, reason)]
    assert (listed.images, listed.lines.tolist()) == (["good", "last"], [1, 3])


LINES = {
    "two words.jpg 3": "two words.jpg",
    "a/b c  d.jpg\t3": "a/b c  d.jpg",
    "a, b.jpg 3": "a, b.jpg",
    "a.jpg,3": "a.jpg",
    "a b,c.jpg,3": "a b,c.jpg",
    '"a, b.jpg",3': "a, b.jpg",
    '" blank ".jpg" 3': ' blank ".jpg',
    '"say ""no"".jpg" 3': 'say "no".jpg',
    '"a, b.jpg","3"': "a, b.jpg",
    '"a, b.jpg", 3': "a, b.jpg",
    '"a b.jpg",\t"3"': "a b.jpg",
    '"a,",3': "a,",
    "a, 3": "a,",
    'say "no", 3': 'say "no",',
    "Screenshot 9.41\u202fAM.png 3": "Screenshot 9.41\u202fAM.png",
    "e\u0301t\u00e9/1 2 3": "e\u0301t\u00e9/1 2",
    "#1.jpg 3": "#1.jpg",
    "-x 100%.jpg 3": "-x 100%.jpg",
    "1 3": "1",
    "./a.jpg 3": "a.jpg",
    '"./a b.jpg",3': "a b.jpg",
}


@pytest.mark.parametrize(("line", "image"), LINES.items())
def test_the_last_word_is_the_label_and_all_before_it_the_path(tmp_path, line, image):
    path = write(tmp_path / "list.txt", f"{line}\nother 0\n")
    assert parsed(path) == [(image, 3, 1), ("other", 0, 2)]


@pytest.mark.parametrize("heading", ["path label", "path,label", "file\tclass"])
def test_a_heading_is_called_one(tmp_path, heading):
    _, bad = read_list(write(tmp_path / "list.txt", f"{heading}\na 0\nb x\n"))
    assert [x.reason.endswith("; if this is a heading, remove it") for x in bad] == [True, False]


def test_names_that_begin_with_a_dot_are_no_strange_parts(tmp_path):
    path = write(tmp_path / "list.txt", ".hidden 0\na/.b 1\na/...c 1\n")
    assert [row[0] for row in parsed(path)] == [".hidden", "a/.b", "a/...c"]


@pytest.mark.parametrize("text", ["a 1_0\n", "a +1\n", "a 1-1\n", "a\nb c\n", "a/ 0\n"])
def test_what_numpy_would_read_but_is_no_line_is_bad(tmp_path, text):
    listed, bad = read_list(write(tmp_path / "list.txt", "good 0\n" + text))
    assert (listed.images, len(bad)) == (["good"], text.count("\n"))


def test_bad_lines_are_reported_together_in_one_line(tmp_path, caplog):
    path = write(tmp_path / "list.txt", "".join(f"{number}\n" for number in range(7)))
    _, bad = read_list(path)
    with pytest.raises(UsageError) as caught:
        refuse(reversed(bad))
    first, *others = (
        f"{path}:{number + 1} must have a path and a label, got '{number}'" for number in range(5)
    )
    shown = "; ".join([f"{first}; if this is a heading, remove it", *others])
    assert str(caught.value) == (
        f"list files must have no bad line, got 7 bad lines: {shown}; and 2 more, see above"
    )
    assert len(caplog.messages) == 7
    with pytest.raises(
        UsageError,
        match=r"got 1 bad line: .*:7 must have a path and a label, got '6'$",
    ):
        refuse(bad[6:])
    refuse([])


def test_a_file_that_is_no_list_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.txt must be readable: No such file"):
        read_list(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UsageError, match="binary must be UTF-8 text"):
        read_list(tmp_path / "binary")
    for text in ("", "\n \n"):
        with pytest.raises(UsageError, match="must have a line for each image, got none"):
            read_list(write(tmp_path / "empty", text))


def test_labels_outside_a_range_are_found(tmp_path):
    listed, _ = read_list(write(tmp_path / "list.txt", "a 0\nb -1\nc 5\nd 4\n"))
    found = [(line, reason) for _, line, reason in outside_labels(listed, 0, 4)]
    assert found == [(2, "label must lie in 0..4, got -1"), (3, "label must lie in 0..4, got 5")]
    assert [line for _, line, _ in outside_labels(listed, -1, -1)] == [1, 3, 4]


def test_missing_files_are_found(tmp_path):
    for name in ("x/a.jpg", "top.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x" / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "x" / "dangling.jpg").symlink_to("nothing")
    (tmp_path / "x" / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "x" / "directory.jpg").mkdir()
    names = ["x/a.jpg", "x/b.jpg", "top.jpg", "y/a.jpg", "x/link.jpg", "x/dangling.jpg"]
    text = "".join(f"{name} 0\n" for name in [*names, "x/directory.jpg", "top.jpg/a.jpg"])
    listed, _ = read_list(write(tmp_path / "list.txt", text))
    missing = missing_images(tmp_path, listed)
    assert sorted(line for _, line, _ in missing) == [2, 4, 6, 7, 8]
    assert (listed.path, 2, f"image must be a file, got {tmp_path}/x/b.jpg") in missing


def test_backslashes_of_windows_are_named(tmp_path):
    listed, _ = read_list(write(tmp_path / "list.txt", "x\\a.jpg 0\n"))
    (missing,) = missing_images(tmp_path, listed)
    assert (
        missing.reason == f"image must be a file, got {tmp_path}/x\\a.jpg; write / in place of \\"
    )
    (tmp_path / "x\\a.jpg").touch()
    assert missing_images(tmp_path, listed) == []


def test_an_accent_of_another_form_is_named(tmp_path):
    (tmp_path / "e\u0301.jpg").touch()
    listed, _ = read_list(write(tmp_path / "list.txt", "\u00e9.jpg 0\n\u00e8.jpg 0\n"))
    reasons = [reason for _, _, reason in missing_images(tmp_path, listed)]
    assert [reason.partition(", whose accents")[1] for reason in reasons] == [", whose accents", ""]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["t/n01/a 0", "t/n01/b 0", "t/n02/c 1"], ("n01", "n02")),
        # Places: the last part alone would be the same for both.
        (["t/a/barn/a 0", "t/b/inn/out/a 1", "t/p/park/out/a 2"], ("barn", "inn/out", "park/out")),
        (["x/a/c/i 0", "y/a/c/i 1", "x/b/c/i 2"], ("x/a/c", "y/a/c", "b/c")),
        (["t/x/a 0", "t/y/b 0", "t/z/c 1"], ("0", "z")),
        (["val/a 0", "val/b 1", "t/z/c 2"], ("0", "1", "z")),
        (["a 0", "b 1"], ("0", "1")),
    ],
)
def test_classes_are_named_after_their_directories(tmp_path, images, names):
    listed, _ = read_list(write(tmp_path / "list.txt", "\n".join(images)))
    assert class_names(listed) == names


def test_no_two_classes_have_one_name(tmp_path):
    listed, _ = read_list(write(tmp_path / "list.txt", "a/x 0\nb/x 0\n0/y 1\n"))
    assert class_names(listed) == ("0", "1")


def test_labels_may_be_as_many_as_the_lines(tmp_path):
    count = 20_000
    text = "".join(f"{number % 50}/{number}.jpg {number % 50}\n" for number in range(count))
    listed, _ = read_list(write(tmp_path / "list.txt", text))
    np.testing.assert_array_equal(listed.labels, np.arange(count) % 50)
    assert class_names(listed)[49] == "49"
