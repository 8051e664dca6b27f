"""The list of recipes."""

import sys

from experiments import cifar_lt, command_line
from experiments.recipes import BENCHMARKS, SOURCES


def test_every_recipe_is_listed_with_its_source_and_published_numbers(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cifar_lt", "--list"])
    command_line.run(cifar_lt.main)
    lines = capsys.readouterr().out.splitlines()
    rows = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    }
    assert list(rows) == list(BENCHMARKS["cifar_lt"])
    assert all(row[0] == SOURCES[name] for name, row in rows.items())
    assert rows["gcl_cifar10"][1:5] == ["", "", "", "82.68"]
    assert rows["sse_sam_cifar100"][1:5] == ["71.70", "54.50", "17.10", "49.30"]
    assert rows["sgd_digits"][1:] == [""] * 5
    assert not list(tmp_path.iterdir())
