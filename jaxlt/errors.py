"""The one exception that the library raises for a mistake of the person who uses it."""


class UsageError(ValueError):
    """A mistake in a flag, a path, a file or a checkpoint that one line can explain.

    The message names the thing, what it was and what it must be. The programs in
    `experiments` print it as it stands and exit with status 2; it never hides a bug,
    because nothing else is caught.
    """
