"""What every program of this package does around its work: flags, log lines, exit status."""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jaxlt
from experiments import endings, flags, flags_help, parsing
from jaxlt.errors import Interrupted, UsageError


def check_distinct(name: str, values: Sequence[object]) -> None:
    """Raises UsageError for a flag, `name` and an s, that lists nothing or one thing twice."""
    if not values:
        raise UsageError(f"{name}s must name at least one {name}, got none")
    if len(set(values)) < len(values):
        raise UsageError(f"{name}s must be different, got {' '.join(map(str, values))}")


def parse(
    arguments_type: type,
    program: str,
    description: str,
    *,
    default: Any = None,
    args: Sequence[str] | None = None,
) -> Any:
    """Reads the command line, or `args`, into a dataclass; `--help` and `--version` print and end.

    The flags are the fields of `arguments_type` and override `default`, or the type's own values.
    `program` is the module that `python -m` runs. A flag that cannot be raises UsageError.
    """
    default = flags.blank(arguments_type) if default is None else default
    words = sys.argv[1:] if args is None else list(args)
    if "--help" in words or "-h" in words:
        words = [word for word in words if word not in ("--help", "-h")]
        print(flags_help.render(parsing.with_parts(default, words), program, description))
        sys.exit(0)
    if "--version" in words:
        print(f"jaxlt {jaxlt.__version__}")
        sys.exit(0)
    return parsing.parse(default, words)


def word_of(flag: str, words: Sequence[str], default: str) -> str:
    """Returns the word given for a flag, the last one if it is given twice."""
    found = default
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == f"--{flag}":
            found = value if equals else next(iter(words[number + 1 :]), default)
    return found


def say_next(*commands: str) -> None:
    """Prints the commands that a user may want next."""
    logging.getLogger(__name__).info("next:%s", "".join(f"\n  {one}" for one in commands))


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
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is endings.stop_at_once:
            signal.signal(signum, endings.interrupt)
    try:
        main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_status)
    except KeyboardInterrupt:
        # Runs collect it themselves while there is something to save.
        endings.say_stopped()
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has seen enough.
        sys.stdout = None


def _unless_abandoned(unraisable: "sys.UnraisableHookArgs") -> None:
    """Keeps quiet of each write that Orbax waited for no longer once another one had failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
