"""Lists the programs of this folder: `python -m experiments`."""

import ast
import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

_WIDTH = 120


def _programs() -> Iterator[tuple[str, str]]:
    for path in Path(__file__).parent.iterdir():
        main = path / "__main__.py" if path.is_dir() else path
        if main.suffix != ".py" or path == Path(__file__) or not main.exists():
            continue
        if 'if __name__ == "__main__":' in main.read_text():
            said = ast.parse((path / "__init__.py" if path.is_dir() else path).read_text())
            first, _, _ = (ast.get_docstring(said) or "").partition("\n")
            yield path.stem, re.sub(r":? `python3? -m [^`]*`", "", first)


def main() -> None:
    """Prints a line for each program."""
    if "--version" in sys.argv[1:]:
        print(f"jaxlt {importlib.metadata.version('jaxlt')}")
        return
    found = dict(sorted(_programs()))
    width = max(map(len, found))
    for name, purpose in found.items():
        line = f"{name.ljust(width)}  {purpose}"
        print(textwrap.shorten(line, _WIDTH) if len(line) > _WIDTH else line)
    print("\nnext:\n  python3 -m experiments.quickstart\n  python3 -m experiments.NAME --help")


if __name__ == "__main__":
    main()
