"""The list of programs: `python -m experiments`."""

import subprocess
import sys
from pathlib import Path

import jaxlt

ROOT = Path(__file__).parents[2]


def test_every_program_is_listed_in_a_line_without_importing_it():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "experiments"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed, _, commands = done.stdout.partition("\n\nnext:\n")
    lines = dict(line.split(maxsplit=1) for line in listed.splitlines())
    folder = ROOT / "experiments"
    files = [*folder.glob("*.py"), *folder.glob("*/__main__.py")]
    assert set(lines) == {
        file.parent.name if file.name == "__main__.py" else file.stem
        for file in files
        if "command_line.run(main)" in file.read_text()
    }
    assert lines["quickstart"] == "All six optimizers on the long-tailed digits, offline."
    assert lines["table"] == "Tables of many recipes and seeds beside published numbers."
    assert all(len(line) <= 120 for line in listed.splitlines())
    assert "python3 -m experiments.quickstart" in commands
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ast" in imported
    assert not imported & {"jax", "jaxlt", "numpy", "msgspec", "experiments.command_line"}


def test_the_list_has_a_version_too():
    command = [sys.executable, "-m", "experiments", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"jaxlt {jaxlt.__version__}\n"
