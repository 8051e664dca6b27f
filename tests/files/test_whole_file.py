"""Files that programs are told to write."""

import os
from pathlib import Path

import pytest

from jaxlt import UsageError
from jaxlt.files.whole_file import check_can_be_written, whole_file


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path, "csv") as file:
        file.write(b"half of it %d" % (1 // 0))
    assert path.read_text() == "old"
    with whole_file(path, "csv") as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("target")
    with whole_file(tmp_path / "link", "output") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("place", ["", "no/a.csv", "pipe", "/dev/null"])
def test_what_is_no_place_for_a_file_is_refused(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(UsageError, match=r"^csv must be a file"),
        whole_file(tmp_path / place, "csv"),
    ):
        raise AssertionError("nothing may be written")
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_a_file_whose_directory_will_be_made(tmp_path):
    place = tmp_path / "no" / "a.html"
    check_can_be_written(place, "output", makes_directory=True)
    with pytest.raises(UsageError, match=f"got {place}; make {tmp_path}/no first"):
        check_can_be_written(place, "output")
    (tmp_path / "no").touch()
    with pytest.raises(UsageError, match=f"; {tmp_path}/no is not a writable directory"):
        check_can_be_written(place, "output", makes_directory=True)


def test_a_disk_that_takes_no_more_is_a_line(tmp_path):
    with (
        pytest.raises(
            UsageError, match=r"csv must be a file that can be written, got .*: No space"
        ),
        whole_file(tmp_path / "a.csv", "csv") as file,
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(file.name.encode())
    assert list(tmp_path.iterdir()) == []
