"""Programs that read runs are told where the data are now, and refuse others than the runs' own."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import files_of, run_program

from experiments import open_lt
from experiments.flatness import __main__ as flatness_program
from experiments.hessian import __main__ as hessian_program
from experiments.landscape import __main__ as landscape_program
from experiments.ood import __main__ as ood_program
from experiments.report import __main__ as report_program
from experiments.table.plan import finished_runs
from experiments.table.program import Options, train_missing
from jaxlt import UsageError, recipes

PROGRAMS = {
    "flatness": (flatness_program, "--points=2", "--seeds=0"),
    "hessian": (hessian_program,),
    "landscape": (landscape_program,),
    "ood": (ood_program, "--generate", "--corruptions=brightness"),
    "open_lt": (open_lt, "--open=digits"),
}


def write_photos(root):
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for number, name in enumerate(("ant", "bee")):
            (root / part / name).mkdir(parents=True)
            for image in range(count):
                pixels = random.integers(0, 100, (8, 8, 3)) + 100 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{image}.png")
    return root


def recipe_of(root):
    stage = recipes.Stage(
        epochs=1,
        batch_size=4,
        augmentation=recipes.Augmentation(shift="none"),
        method=recipes.SGD(),
    )
    source = recipes.Folder(directory=str(root))
    return recipes.Recipe(
        data=recipes.Data(source=source, profile=recipes.Native(), image_size=8),
        network=recipes.Small(architecture="mlp"),
        stages=(stage,),
    )


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run, `runs/mlp/seed0`, whose photos were moved to `now` after it was trained."""
    place = tmp_path_factory.mktemp("moved")
    root = write_photos(place / "photos")
    recipes.train(recipe_of(root), place / "runs/mlp/seed0")
    root.rename(place / "now")
    return place


@pytest.mark.parametrize("name", PROGRAMS)
def test_data_that_are_gone_or_others_are_told_in_one_line(
    monkeypatch, capsys, tmp_path, moved, name
):
    program, *flags = PROGRAMS[name]
    run = moved / "runs/mlp/seed0"
    before = files_of(run)
    flags += [f"--output={tmp_path / 'out'}", f"--checkpoint={run}"]
    status, _, lines = run_program(monkeypatch, capsys, program, *flags)
    assert (status, len(lines)) == (2, 1), lines
    assert f"{moved / 'photos'}" in lines[0]
    assert lines[0].endswith(f"give where the data of run {run} are now by --dataset SOURCE")
    other = shutil.copytree(moved / "now", tmp_path / "other")
    flags.append(f"--dataset=folder:{other}")
    (other / "test/ant/0.png").rename(other / "test/bee/9.png")
    status, _, lines = run_program(monkeypatch, capsys, program, *flags)
    assert (status, len(lines)) == (2, 1), lines
    assert f"dataset must be that of run {run}" in lines[0]
    assert "labels, names, contents of evaluated images are not the same" in lines[0]
    (other / "train/ant/0.png").rename(other / "train/bee/9.png")
    status, _, lines = run_program(monkeypatch, capsys, program, *flags)
    assert (status, len(lines)) == (2, 1), lines
    assert "split.json must be made from" in lines[0]
    assert files_of(run) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["flatness", "open_lt"])
def test_programs_read_the_data_where_they_are_now(monkeypatch, capsys, tmp_path, moved, name):
    program, *flags = PROGRAMS[name]
    output = tmp_path / "out"
    flags += [f"--checkpoint={moved / 'runs/mlp/seed0'}", f"--dataset=folder:{moved}//now"]
    status, _, _ = run_program(monkeypatch, capsys, program, *flags, f"--output={output}")
    assert status == 0
    assert list(output.glob("*.png"))


def test_a_report_reads_the_data_where_they_are_now(monkeypatch, capsys, tmp_path, moved):
    page, run = tmp_path / "report.html", moved / "runs/mlp/seed0"
    flags = [f"--output={page}", f"--dataset=folder:{moved / 'now'}"]
    status, _, _ = run_program(monkeypatch, capsys, report_program, run, *flags)
    assert status == 0
    assert "are not shown" not in page.read_text()


def test_a_table_knows_its_runs_by_what_their_data_hold(tmp_path, moved):
    directory, root = moved / "runs", moved / "now"
    assert set(finished_runs(directory, "mlp", recipe_of(root), (0,))) == {0}
    # As it was, nobody reads the data.
    assert set(finished_runs(directory, "mlp", recipe_of(moved / "photos"), (0,))) == {0}
    other = shutil.copytree(root, tmp_path / "other")
    (other / "test/ant/0.png").unlink()
    with pytest.raises(UsageError, match="evaluated images are 4 there and 3 here"):
        finished_runs(directory, "mlp", recipe_of(other), (0,))
    with pytest.raises(UsageError, match="photos must be a directory"):
        finished_runs(directory, "mlp", recipe_of(moved / "photos"), (0,), compare=True)


def test_a_finished_table_is_not_made_of_data_that_changed(tmp_path, moved):
    run, recipe = tmp_path / "runs/mlp/seed0", recipe_of(tmp_path / "photos")
    shutil.copytree(moved / "runs/mlp/seed0", run)
    identity = json.loads((run / "recipe.json").read_text())
    identity["recipe"] = recipe.identity()["recipe"]
    (run / "recipe.json").write_text(json.dumps(identity))
    root = shutil.copytree(moved / "now", tmp_path / "photos")
    (root / "train/ant/0.png").write_bytes((root / "train/bee/0.png").read_bytes())
    before = files_of(tmp_path)
    assert set(finished_runs(tmp_path / "runs", "mlp", recipe, (0,))) == {0}
    with pytest.raises(UsageError, match="contents of training images are not the same; put"):
        train_missing({"mlp": recipe}, tmp_path / "runs", Options((0,)))
    assert files_of(tmp_path) == before
