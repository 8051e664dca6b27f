"""The list of a program's named recipes."""

import difflib
from collections.abc import Sequence

from tabulate import tabulate

from experiments.presentation import MEASURES
from jaxlt.errors import UsageError
from jaxlt.recipes.named import PUBLISHED, SOURCES, of_benchmark

_COLUMN = 58


def format_list(benchmark: str, part: str = "") -> str:
    """Renders a benchmark's recipes: what they follow, and the published accuracy in percent.

    Args:
        benchmark: a key of `BENCHMARKS`.
        part: of the names that are listed.

    Raises:
        UsageError: no name has that part.
    """
    known = of_benchmark(benchmark)
    names = [name for name in known if part in name]
    if not names:
        near = difflib.get_close_matches(part, known)
        hint = f", such as {' or '.join(near)}" if near else ""
        raise UsageError(f"list must be a part of a recipe's name{hint}, got {part}")
    sources = SOURCES
    headers = ["recipe", "after", *MEASURES.values()]
    rows = [[name, _short(sources[name]), *_published(name)] for name in names]
    width = max(len(name) for name in names)
    room = max(20, _COLUMN + 28 - width)
    rows = [[name, after[:room], *numbers] for name, after, *numbers in rows]
    cited = dict.fromkeys(PUBLISHED[name].source for name in names if name in PUBLISHED)
    table = tabulate(rows, headers, tablefmt="simple", floatfmt=".1f")
    return table + "".join(f"\npublished in: {source}" for source in cited)


def _short(source: str) -> str:
    return source.partition(",")[0].partition(";")[0]


def _published(name: str) -> Sequence[object]:
    published = PUBLISHED.get(name)
    return () if published is None else [getattr(published, measure) for measure in MEASURES]
