import json
import os
from pathlib import Path

import pytest
from small_training import measurements_of

from jaxlt import UsageError
from jaxlt.runs.reader import directory_and_step
from jaxlt.training import Workdir

RECIPE = {"lr": 0.1, "method": "sam", "class_order": (2, 1, 0)}


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_a_run_is_taken_up_again(tmp_path):
    Workdir(tmp_path / "run", RECIPE)
    before = files_of(tmp_path / "run")
    Workdir(tmp_path / "run", RECIPE)
    assert files_of(tmp_path / "run") == before
    assert json.loads(before["recipe.json"])["class_order"] == [2, 1, 0]


def test_another_recipe_is_refused_naming_what_differs(tmp_path):
    Workdir(tmp_path, RECIPE)
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match=r"lr is 0.1 there and 0.2 here") as caught:
        Workdir(tmp_path, {**RECIPE, "lr": 0.2})
    assert "method" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before


def test_a_run_of_an_earlier_format_is_refused(tmp_path):
    Workdir(tmp_path, RECIPE)
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match=r"recipe\.json must have format 2, got None: ") as caught:
        Workdir(tmp_path, {**RECIPE, "format": 2})
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        Workdir(tmp_path, RECIPE)
    assert set(files_of(tmp_path)) == {"thesis.tex"}


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="must be a writable directory"):
            Workdir(path, RECIPE)


def test_a_directory_above_runs_is_refused_naming_some(tmp_path):
    runs = [tmp_path / "runs" / "sam" / f"seed{seed}" for seed in range(4)]
    for run in runs:
        Workdir(run, RECIPE)
        (run / "model.json").touch()
        assert directory_and_step(run) == (run, None)
        assert directory_and_step(run / "checkpoints" / "7") == (run, 7)
    named = ", ".join(map(str, runs[:3]))
    for above in (tmp_path, tmp_path / "runs" / "sam"):
        with pytest.raises(UsageError, match="must be the directory of one run") as caught:
            directory_and_step(above)
        assert f"got one that holds 4: {named}, and 1 more; give one" in str(caught.value)
    assert directory_and_step(tmp_path / "nowhere") == (tmp_path / "nowhere", None)


def test_short_runs_are_named_only_where_there_are_no_others(tmp_path):
    photos = tmp_path / "trials" / "photos"
    short, full = photos / "trials" / "sam,rho=0.1" / "seed0", photos / "sam" / "seed0"
    for run in (short, full):
        Workdir(run, RECIPE)
    for above, only in ((photos, full), (photos / "trials", short)):
        with pytest.raises(UsageError) as caught:
            directory_and_step(above)
        assert f"got one that holds 1: {only}; give it" in str(caught.value)


def test_a_path_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    strange = tmp_path / os.fsdecode(b"\xe9t\xe9")
    with pytest.raises(UsageError, match=r"must have a path in UTF-8, .* got .*/\\udce9t"):
        Workdir(strange / "run", RECIPE)
    assert not strange.exists()
    strange.mkdir()
    monkeypatch.chdir(strange)
    with pytest.raises(UsageError, match="must have a path in UTF-8"):
        Workdir(Path("run"), RECIPE)
    Workdir(tmp_path / "\u00e9t\u00e9 e\u0301, two", RECIPE)


def test_a_damaged_recipe_is_named(tmp_path):
    (tmp_path / "recipe.json").write_text('{"lr": 0.')
    with pytest.raises(UsageError, match=r"recipe\.json must be JSON"):
        Workdir(tmp_path, RECIPE)


def test_a_kill_between_creating_and_naming_the_recipe_is_no_obstacle(tmp_path):
    (tmp_path / "recipe.json.partial").write_text('{"lr"')
    Workdir(tmp_path, RECIPE)


def test_metrics_survive_a_line_cut_short(tmp_path):
    workdir = Workdir(tmp_path, RECIPE)
    for step in (10, 20, 30):
        workdir.append_metrics(
            {"step": step, "few": float("nan"), "per_class": [0.5, float("nan")]}
        )
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[:-5])
    assert [record["step"] for record in workdir.read_metrics()] == [10, 20]
    workdir.keep_metrics_until(10)
    record = {"step": 10, "few": None, "per_class": [0.5, None]}
    assert workdir.read_metrics() == [record]
    assert whole.startswith((tmp_path / "metrics.jsonl").read_bytes())


def test_measurements_are_kept_apart_and_made_again_at_the_step_of_a_resumption(tmp_path):
    workdir = Workdir(tmp_path, RECIPE)
    for step in (10, 20):
        workdir.append_metrics({"step": step - 5, "measurement": {"loss": {"few": float("nan")}}})
        workdir.append_metrics({"step": step, "few": 0.5})
        workdir.append_metrics({"step": step, "measurement": {"loss": {"few": 0.25}}})
    workdir.keep_metrics_until(20)
    assert [record["step"] for record in workdir.read_metrics()] == [10, 20]
    measured = measurements_of(workdir)
    assert [record["step"] for record in measured] == [5, 10, 15]
    assert measured[0] == {"step": 5, "measurement": {"loss": {"few": None}}}
    workdir.keep_metrics_until(10)
    assert [record["step"] for record in workdir.read_metrics()] == [10]
    assert [record["step"] for record in measurements_of(workdir)] == [5]
