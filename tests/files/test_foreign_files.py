"""The bounds of reading what others wrote."""

import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import JsonError, parse_json, read_content, read_utf8

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
def test_json_comes_back(value):
    assert parse_json(json.dumps(value)) == value


@given(st.text())
def test_any_text_is_json_or_refused_in_a_line(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(JsonError) as caught:
            parse_json(text)
        assert len(str(caught.value).splitlines()) == 1
    else:
        assert repr(parse_json(text)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested more than 64 deep"),
        ("[" * 1_000_000, "nested more than 64 deep"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' twice in one object"),
        ("9" * 5000, "digits"),
        ("[1,]", "line 1 column"),
        ("", "line 1 column"),
    ],
)
def test_json_that_does_harm_is_refused(text, words):
    with pytest.raises(JsonError, match=words):
        parse_json(text)


def test_what_is_deep_enough_is_read():
    assert parse_json("[" * 64 + "]" * 64) == json.loads("[" * 64 + "]" * 64)
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_files_are_read_whole(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa\xc3\xa9\r\n")
    assert read_content(tmp_path / "file") == b"\xef\xbb\xbfa\xc3\xa9\r\n"
    assert read_utf8(tmp_path / "file") == "aé\r\n"


def refused(path, largest=None):
    with pytest.raises(OSError, match=r"[a-z]") as caught:
        read_content(path, largest)
    return str(caught.value.strerror)


def test_what_has_no_end_or_is_too_large_is_refused(tmp_path):
    assert refused("/dev/zero") == "it is no regular file"
    assert refused(tmp_path) == "Is a directory"
    assert refused(tmp_path / "absent") == "No such file or directory"
    assert "null" in refused(tmp_path / "a\0b")
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 2**40)
    tracemalloc.start()
    assert refused(sparse, 10) == f"it has {2**40} bytes, at most 10 are read"
    with pytest.raises(OSError, match="at most"):
        read_utf8(sparse)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "it is no regular file"


@given(st.text(), st.integers(0, 3000))
def test_a_users_mistake_is_one_printable_line(text, times):
    message = str(UsageError(text * times))
    assert message.isprintable()
    assert len(message) <= 10 * 2000 + 3


def test_printable_messages_stay():
    assert str(UsageError("directory /é must be new")) == "directory /é must be new"
    assert str(UsageError("a\nb\x1b[31m\u2028\ud800")) == r"a\nb\x1b[31m\u2028\ud800"
