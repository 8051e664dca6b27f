"""What a program around the library catches: a mistake of its user, and a request to stop."""

import signal
from collections.abc import Sequence

_SHOWN = 2000


class UsageError(ValueError):
    """A mistake in a flag, a path, a file or a checkpoint that one line can explain.

    The message names the thing, what it must be and what it was. It may quote a file, so it is
    shortened to a bounded length and characters that are not printable, such as line ends, are
    escaped. The programs in `experiments` print the message alone and exit with status 2. They
    catch nothing else, so no bug is hidden.

    Attributes:
        on_all_processes: whether every process that trains raises it at the same point.

    Example:
        >>> import jaxlt
        >>> print(jaxlt.UsageError("--epochs must be at least 1, got 0"))
        --epochs must be at least 1, got 0
    """

    on_all_processes = False

    def __init__(self, message: str):
        # Escaped only as far as is shown: the rest of a damaged file may be long.
        super().__init__(
            in_one_line(message if len(message) <= _SHOWN else f"{message[:_SHOWN]}...")
        )


class Interrupted(Exception):  # noqa: N818 (no error: the run was asked to stop and can go on)
    """A signal of some number asked the run to stop; its state after a step is saved."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}, state saved")
        # What a shell expects of a program that the signal ended.
        self.exit_status = 128 + signum


def in_one_line(text: str) -> str:
    """Returns a text with what cannot be printed, such as line ends, escaped."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def first_few(texts: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """Joins the first texts, and says how many more there are.

    Args:
        texts: what is to be named.
        most: how many of them.
        between: what stands between two.

    Example:
        >>> from jaxlt.errors import first_few
        >>> first_few(["ant", "bee", "cat"], 2)
        'ant, bee, and 1 more'
    """
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return between.join([*texts[:most], *more])


def counted(number: int, noun: str) -> str:
    """Joins a number and its noun.

    Args:
        number: of things.
        noun: what one of them is called.

    Example:
        >>> from jaxlt.errors import counted
        >>> counted(1, "class"), counted(2, "class"), counted(0, "short run")
        ('1 class', '2 classes', '0 short runs')
    """
    end = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{end}"


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's message, or its type where it has none.

    Of a long line the first 160 letters; a `UsageError` is whole, as its remedy stands at its end.
    """
    if isinstance(error, UsageError):
        return str(error)
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
