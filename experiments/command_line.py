"""What every program of this package does around its work: flags, log lines, exit status."""

import contextlib
import io
import logging
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from jaxlt.errors import Interrupted, UsageError

_Value = TypeVar("_Value")


def _numbers(words: list[str]) -> tuple[int, ...]:
    return tuple(number for word in words for number in _range(word))


def _range(word: str) -> range:
    found = re.fullmatch(r"(-?\d+)(?:-(\d+))?", word)
    first, last = map(int, (found[1], found[2] or found[1])) if found else (0, -1)
    if first > last:
        raise ValueError(f"{word!r} is neither a number nor a range such as 0-7")
    return range(first, last + 1)


# The type of flags such as `--seeds 0 1 5-7`.
Numbers = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT|INT-INT [...]]",
        instance_from_str=_numbers,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda numbers: [str(number) for number in numbers],
    ),
]


def check_distinct(name: str, values: Sequence[object]) -> None:
    """Raises UsageError for a flag, `name` and an s, that lists nothing or one thing twice."""
    if not values:
        raise UsageError(f"{name}s must name at least one {name}, got none")
    if len(set(values)) < len(values):
        raise UsageError(f"{name}s must be different, got {' '.join(map(str, values))}")


def chosen(name: str, table: Mapping[Any, _Value], keys: Sequence[str]) -> dict[str, _Value]:
    """Returns the entries of a table that a flag, `name` and an s, lists.

    Raises:
        UsageError: one of them is not in the table.
    """
    for key in keys:
        if key not in table:
            raise UsageError(f"{name}s must be among {', '.join(table)}, got {key}")
    return {key: table[key] for key in keys}


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
    for chatty in ("jax", "orbax", "tensorflow"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # By which Orbax's threads and tasks log, with lines of their stacks, what it also raises.
    for repeating in ("absl", "asyncio"):
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
    sys.unraisablehook = _unless_abandoned
    try:
        main()
    except UsageError as error:
        sys.exit(_fail(error, 2))
    except Interrupted as stop:
        sys.exit(_fail(stop, stop.exit_status))
    except KeyboardInterrupt:
        # Runs collect it themselves while there is something to save.
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has seen enough.
        sys.stdout = None


def _unless_abandoned(unraisable: "sys.UnraisableHookArgs") -> None:
    """Keeps quiet of each write that Orbax waited for no longer once another one had failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


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
