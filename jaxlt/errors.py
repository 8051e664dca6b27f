"""What a program around the library catches: a mistake of its user, and a wish to stop."""

import signal


class UsageError(ValueError):
    """A mistake in a flag, a path, a file or a checkpoint that one line can explain.

    The message names the thing, what it was and what it must be. The programs in
    `experiments` print it as it stands and exit with status 2; it never hides a bug,
    because nothing else is caught.
    """


class Interrupted(Exception):  # noqa: N818 (no error: the run was asked to stop and can go on)
    """A signal asked the run to stop; its state is saved.

    Attributes:
        exit_status: what a shell expects of a program that the signal ended.
    """

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}, state saved")
        self.exit_status = 128 + signum
