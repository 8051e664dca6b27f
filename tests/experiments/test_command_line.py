"""How programs end, whatever they do."""

import signal

import pytest

from experiments import command_line, endings
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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_line_at_any_time(monkeypatch, capsys, signum):
    """Also after training, while tables and pages are made."""
    monkeypatch.setattr(endings, "_interrupted", 0)
    before = signal.signal(signum, endings.stop_at_once)
    try:
        with pytest.raises(SystemExit) as stop:
            command_line.run(lambda: signal.raise_signal(signum))
    finally:
        signal.signal(signum, before)
    assert stop.value.code == 128 + signum
    assert capsys.readouterr().err == f"stopped by {signum.name}\n"


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        command_line.run(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    "words", [["--init-from", "run"], ["--init_from", "run"], ["--init_from=run"]]
)
def test_a_word_is_found_before_flags_are_read(words):
    assert command_line.word_of("init-from", ["--jobs", "2", *words], "") == "run"
    assert command_line.word_of("batch-size", words, "") == ""
