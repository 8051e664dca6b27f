"""The type of flags that list numbers and ranges of them, such as `--seeds 0 1 5-7`."""

import re
from typing import Annotated

_MOST = 10_000
"""Of numbers in a range, which a slip of the finger must not fill memory with."""


def _numbers(words: list[str]) -> tuple[int, ...]:
    return tuple(number for word in words for number in _range(word))


def _range(word: str) -> range:
    found = re.fullmatch(r"(-?\d+)(?:-(\d+))?", word)
    first, last = map(int, (found[1], found[2] or found[1])) if found else (0, -1)
    if not first <= last < first + _MOST:
        raise ValueError("numbers and ranges such as 0-7")
    return range(first, last + 1)


Numbers = Annotated[tuple[int, ...], _numbers]
