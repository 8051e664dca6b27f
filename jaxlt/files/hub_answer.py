"""An answer of the Hugging Face hub, which is not waited for long."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")

# Seconds in which the hub must answer: its library tries for minutes.
_DEADLINE = 10.0


def hub_answer(ask: Callable[[float], _Answer]) -> _Answer:
    """Returns what a function makes of the hub's answer, given the seconds that it may wait.

    What it raises is raised here too, a TimeoutError where it has not come back in time.

    Example:
        >>> from jaxlt.files.hub_answer import hub_answer
        >>> hub_answer(lambda seconds: f"asked for {seconds:g} seconds")
        'asked for 10 seconds'
    """
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append((ask(_DEADLINE), None))
        except Exception as error:
            answers.append((None, error))

    # A daemon, which a program does not wait for when it ends.
    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(_DEADLINE)
    if not answers:
        raise TimeoutError(f"no answer in {_DEADLINE:g} seconds")
    answer, error = answers[0]
    if error is not None:
        raise error
    return answer
