"""What a program around the library catches: a mistake of its user, and a wish to stop."""

import signal

_SHOWN = 2000


class UsageError(ValueError):
    """A mistake in a flag, a path, a file or a checkpoint that one line can explain.

    The message names the thing, what it was and what it must be. The programs in
    `experiments` print it as it stands and exit with status 2; it never hides a bug,
    because nothing else is caught.

    Args:
        message: characters that are not printable, line ends among them, are escaped, as it may
            quote what a file holds; so is its length bounded.

    Attributes:
        on_all_processes: whether every process that trains raises it, at the same point.
    """

    on_all_processes = False

    def __init__(self, message: str):
        # Escaped only as far as is shown: the rest of a damaged file may be long.
        shown = message if len(message) <= _SHOWN else f"{message[:_SHOWN]}..."
        super().__init__(
            "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)
        )


class Interrupted(Exception):  # noqa: N818 (no error: the run was asked to stop and can go on)
    """A signal asked the run to stop; its state is saved.

    Attributes:
        exit_status: what a shell expects of a program that the signal ended.
    """

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}, state saved")
        self.exit_status = 128 + signum
