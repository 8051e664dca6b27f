"""A run that an earlier version of this library began is finished by this one."""

import json
import shutil
from pathlib import Path

import pytest
from small_runs import run_program

from experiments import cifar_lt

OLDER = Path(__file__).parents[1] / "golden" / "older_run"
FLAGS = (
    *("--dataset=digits", "--model=mlp", "--method=imb_sam", "--imbalance-factor=10"),
    *("--batch-size=32", "--epochs=8", "--eval-epochs=2"),
)


def test_it_goes_on_to_what_the_earlier_version_gives(tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(OLDER / "run", workdir)
    arguments = (monkeypatch, capsys, cifar_lt, *FLAGS, f"--workdir={workdir}")
    status, _, lines = run_program(*arguments)
    assert status == 0
    assert "resumed after step 30 of 117" in "\n".join(lines)
    found = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    expected = json.loads((OLDER / "last_evaluation.json").read_text())
    for name in ("step", "train_loss", "test_loss", "accuracy", "few"):
        # Other processors round otherwise.
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name
    codes = json.loads((workdir / "result.json").read_text())["code"]
    assert len(codes) == 2, "which versions trained is on record"
