"""Damage to files as Hypothesis draws it: cut, flipped, spliced, and numbers that lie."""

import struct

from hypothesis import strategies as st

_LIES = [
    *(struct.pack(form, value) for form in ("<q", ">q") for value in (2**63 - 1, -1, 2**40, 0)),
    *(struct.pack(form, value) for form in ("<i", ">i") for value in (2**31 - 1, -1, 2**20, 0)),
    b"9" * 20,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"\\ud800"',
    b"0" * 4301,
    b"[" * 2000,
    b"../",
    b"/",
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    "\u0663".encode(),
]


@st.composite
def damaged(draw, seeds):
    """Bytes that one to three changes make of one of the seeds; or any bytes at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        content = _changed(draw, content, seeds)
    return content


def _changed(draw, content, seeds):
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 32)))
    match draw(st.sampled_from(["cut", "flip", "lie", "insert", "drop", "repeat", "splice"])):
        case "cut":
            return content[:start]
        case "flip" if start < len(content):
            changed = content[start] ^ draw(st.integers(1, 255))
            return content[:start] + bytes([changed]) + content[start + 1 :]
        case "lie":
            lie = draw(st.sampled_from(_LIES))
            return content[:start] + lie + content[start + len(lie) :]
        case "insert":
            return content[:start] + draw(st.sampled_from(_LIES)) + content[end:]
        case "repeat":
            return content[:end] + content[start:end] * draw(st.integers(1, 64)) + content[end:]
        case "splice":
            other = draw(st.sampled_from(seeds))
            return content[:start] + other[draw(st.integers(0, len(other))) :]
        case _:
            return content[:start] + content[end:]
