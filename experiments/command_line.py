"""What every program of this package does around its work: flags, log lines, exit status."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import tyro

from jaxlt.errors import Interrupted, UsageError


def parse(arguments_type: type, program: str, description: str, **options: Any) -> Any:
    """Reads the command line into a dataclass.

    Args:
        arguments_type: dataclass whose fields are the flags.
        program: module that `python -m` runs, for `--help`.
        description: what the program does, for `--help`.
        **options: of `tyro.cli`, such as `default` or `args`.

    Raises:
        UsageError: a flag is unknown, lacks a value or has one of the wrong type.
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(
                arguments_type, prog=f"python -m {program}", description=description, **options
            )
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise UsageError(_panel_text(captured.getvalue())) from None


def run(main: Callable[[], None]) -> None:
    """Runs a program: its log on standard error, a user's mistake as one line and status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for chatty in ("absl", "jax", "orbax", "tensorflow"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    try:
        main()
    except UsageError as error:
        sys.exit(_fail(error, 2))
    except Interrupted as stop:
        sys.exit(_fail(stop, stop.exit_status))


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}" if status == 2 else str(error), file=sys.stderr)
    return status


def _panel_text(panel: str) -> str:
    """Returns the message of a panel that tyro drew, on one line, without its advice."""
    words: list[str] = []
    for line in panel.splitlines()[1:]:
        text = line.strip("│╭╮╰╯ ")
        if text.startswith("──"):
            break
        words += text.split()
    return " ".join(words) + " (see --help)"
