"""The list of recipes."""

import re
import sys

import pytest
from small_runs import run_program

from experiments import cifar_lt, clip_lt, command_line
from jaxlt.recipes.named import BENCHMARKS, PUBLISHED, SOURCES


def listed(monkeypatch, capsys, *words, program=cifar_lt):
    """The cells of each row by its recipe, and the lines below the table."""
    monkeypatch.setattr(sys, "argv", ["program", "--list", *words])
    command_line.run(program.main)
    lines = capsys.readouterr().out.splitlines()
    starts = [found.start() for found in re.finditer("-+", lines[1])]
    ends = [*starts[1:], None]
    rows, cited = {}, []
    for line in lines[2:]:
        if line.startswith("published in: "):
            cited.append(line.removeprefix("published in: "))
        else:
            cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
            rows[cells[0]] = cells[1:]
    return rows, cited, lines


def test_every_recipe_is_listed_with_its_source_and_published_numbers(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    rows, cited, lines = listed(monkeypatch, capsys)
    assert list(rows) == list(BENCHMARKS["cifar_lt"])
    # As far as there is room.
    assert all(row[0] and SOURCES[name].startswith(row[0]) for name, row in rows.items())
    assert max(map(len, lines)) <= 120
    assert rows["gcl_cifar10"][1:] == ["", "", "", "82.7"]
    assert rows["sse_sam_cifar100"][1:] == ["71.7", "54.5", "17.1", "49.3"]
    assert rows["sgd_digits"][1:] == [""] * 4
    assert set(cited) == {PUBLISHED[name].source for name in rows if name in PUBLISHED}
    assert len(set(cited)) == len(cited)
    assert not list(tmp_path.iterdir())


def test_a_part_of_their_names_chooses_some(monkeypatch, capsys):
    rows, _, _ = listed(monkeypatch, capsys, "focal_sam_clip", program=clip_lt)
    assert list(rows) == [name for name in BENCHMARKS["clip_lt"] if "focal_sam_clip" in name]
    assert 0 < len(rows) < len(BENCHMARKS["clip_lt"])


@pytest.mark.parametrize("word", ["focalsam_cifar10", "mislass_digits"])
def test_a_part_of_no_name_is_refused_with_the_nearest(monkeypatch, capsys, word):
    status, out, lines = run_program(monkeypatch, capsys, cifar_lt, "--list", word)
    assert (status, out, len(lines)) == (2, [], 1)
    assert "list must be a part of a recipe's name, such as" in lines[0]
    assert word.replace("focalsam", "focal_sam").replace("mislass", "mislas") in lines[0]
