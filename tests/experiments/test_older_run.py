"""A run of the earlier, flat recipes is refused in one line and stays as it is."""

import shutil
from pathlib import Path

from small_runs import FLAGS, files_of, run_program

from experiments import cifar_lt

OLDER = Path(__file__).parents[1] / "golden" / "older_run"


def test_it_is_refused_and_left_alone(tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(OLDER / "run", workdir)
    before = {file: file.read_bytes() for file in files_of(workdir) if file.is_file()}
    status, _, lines = run_program(monkeypatch, capsys, cifar_lt, *FLAGS, f"--workdir={workdir}")
    assert status == 2
    (line,) = lines
    assert line.startswith(f"error: {workdir / 'recipe.json'} must have format 2, got None")
    assert "give another --workdir" in line
    assert {file: file.read_bytes() for file in files_of(workdir) if file.is_file()} == before
    recipe = f"--recipe={workdir / 'recipe.json'}"
    status, _, lines = run_program(monkeypatch, capsys, cifar_lt, recipe)
    assert (status, len(lines)) == (2, 1)
    assert "must have format 2, got 0" in lines[0]
