"""The list of a program's named recipes."""

import difflib
import re

from tabulate import tabulate

from experiments.presentation import MEASURES
from jaxlt.errors import UsageError
from jaxlt.recipes.named import PUBLISHED, SOURCES, of_benchmark

# Of a recipe's name and what it follows, together.
_WIDTH = 86


def format_list(benchmark: str, part: str = "") -> str:
    """Renders a benchmark's recipes with a part in their names, and the published percentages."""
    known = of_benchmark(benchmark)
    names = [name for name in known if part in name]
    if not names:
        near = difflib.get_close_matches(part, known)
        hint = f", such as {' or '.join(near)}" if near else ""
        raise UsageError(f"list must be a part of a recipe's name{hint}, got {part}")
    headers = ["recipe", "after", *MEASURES.values()]
    room = max(20, _WIDTH - max(map(len, names)))
    rows = [
        [name, re.split("[,;]", SOURCES[name])[0][:room]]
        + [getattr(PUBLISHED[name], measure) for measure in MEASURES if name in PUBLISHED]
        for name in names
    ]
    cited = dict.fromkeys(PUBLISHED[name].source for name in names if name in PUBLISHED)
    table = tabulate(rows, headers, tablefmt="simple", floatfmt=".1f")
    return table + "".join(f"\npublished in: {source}" for source in cited)
