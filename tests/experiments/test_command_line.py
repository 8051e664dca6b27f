"""How programs end, whatever they do."""

import pytest

from experiments import command_line
from jaxlt import UsageError
from jaxlt.errors import Interrupted


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("rho must be positive, got -1"), 2, "error: rho must be positive, got -1"),
        (UsageError("two\nlines"), 2, "error: two\\nlines"),
        (Interrupted(15, 7), 143, "stopped by SIGTERM after step 7, state saved"),
        (Interrupted(2, 7), 130, "stopped by SIGINT after step 7, state saved"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
    ],
)
def test_a_line_and_a_status(error, status, line, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.run(raising(error))
    assert stop.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        command_line.run(raising(ZeroDivisionError()))
