"""Runs that end within seconds, for the tests of the programs that evaluate finished ones."""

import contextlib
import io
import sys
import types

import pytest

from experiments import cifar_lt, command_line

HANGS = 1800  # seconds, longer than any machine takes for what does not hang
FLAGS = ("--data.source", "digits", "--network", "mlp")
FLAGS += ("--data.profile.imbalance-factor", "10", "--batch-size", "32")


def train(path, *flags, epochs=2):
    """Trains a small network on long-tailed digits."""
    with pytest.MonkeyPatch.context() as patch:
        arguments = [*FLAGS, "--epochs", str(epochs), "--workdir", str(path), *flags]
        patch.setattr(sys, "argv", ["cifar_lt", *arguments])
        command_line.run(cifar_lt.main)
    return path


def run_program(monkeypatch, capsys, program, *flags):
    """Returns the exit status and the lines of standard output and error."""
    monkeypatch.setattr(sys, "argv", ["program", *map(str, flags)])
    status = 0
    try:
        command_line.run(program.main)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


def run_once(program, *flags):
    """As `run_program`, for a fixture of a module, which no capture of a test's own reaches."""
    out, err = io.StringIO(), io.StringIO()

    def readouterr():
        return types.SimpleNamespace(out=out.getvalue(), err=err.getvalue())

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        return run_program(patch, types.SimpleNamespace(readouterr=readouterr), program, *flags)


def files_of(*directories):
    return sorted(file for directory in directories for file in directory.rglob("*"))
