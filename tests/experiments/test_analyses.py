"""flatness, landscape and hessian on finished runs, from the flags to the files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from lanes import soak_but
from matplotlib import image
from small_runs import files_of, run_program, train
from written_runs import change_recipe

import experiments.flatness.__main__ as flatness
import experiments.hessian.__main__ as hessian
import experiments.landscape.__main__ as landscape
from experiments.analyzed_run import AnalyzedRun
from experiments.examined import Examined
from experiments.loaded_runs import common_destination, load_runs, seeds_rows
from jaxlt.errors import UsageError

ROOT = Path(__file__).parents[2]
QUICK = {
    flatness: ("--points", 3, "--seeds", 0, 1),
    landscape: ("--points", 3),
    hessian: ("--by", "group", "--lanczos-steps", 4, "--trace-samples", 2),
}
PICTURES = {
    flatness: ["adversarial.png", "random.png"],
    landscape: ["contours.png", "surfaces.png", "trajectories.png"],
    hessian: ["densities.png", "eigenvalues.png"],
}
GROUPS = ["all", "many", "medium", "few"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two members with three checkpoints each, and a run of another method and network's head."""
    directory = tmp_path_factory.mktemp("runs")
    kept = ("--evaluation.epochs", "1", "--keep-checkpoints", "9", "--seeds", "0", "1")
    flags = ("--evaluation.many-above", "80", "--evaluation.few-below", "20")
    train(directory / "sgd", *kept, *flags, epochs=3)
    ldam = ("--network.classifier", "cosine", "--loss", "ldam")
    ldam += ("--method", "sam", "--method.rho", "0.05")
    train(directory / "ldam", *ldam, *flags, epochs=1)
    return [directory / "sgd" / "seed0", directory / "sgd" / "seed1", directory / "ldam"]


def name_of(program):
    return program.__name__.split(".")[1]


@pytest.mark.parametrize("program", soak_but([landscape], QUICK), ids=name_of)
def test_program_writes_numbers_and_pictures(monkeypatch, capsys, tmp_path, runs, program):
    flags = ("--checkpoint", *runs[:2], "--output", tmp_path / "out", *QUICK[program])
    before = files_of(*runs)
    status, _, errors = run_program(monkeypatch, capsys, program, *flags)
    assert status == 0, errors
    assert files_of(*runs) == before
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert [name for name in written if name.endswith(".png")] == PICTURES[program]
    for name in PICTURES[program]:
        pixels = image.imread(tmp_path / "out" / name)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.02
    values = json.loads((tmp_path / "out" / f"{name_of(program)}.json").read_text())
    assert values["images"] == "train"
    # Progress as plain lines, with rate and time left.
    assert any("a second, ETA" in line for line in errors)
    next_one = "flatness" if program is hessian else "hessian"
    shown = " ".join(map(str, runs[:2]))
    assert errors[-4:] == [
        f"written to {tmp_path / 'out'}",
        "next:",
        f"  python3 -m experiments.{next_one} --checkpoint {shown}",
        f"  python3 -m experiments.report {shown}",
    ]


def test_flatness_starts_at_the_trained_loss_and_is_the_same_each_time(
    monkeypatch, capsys, tmp_path, runs
):
    flags = ("--checkpoint", *runs[:2], *QUICK[flatness], "--local-range", 0.2)
    for number in range(2):
        output = ("--output", tmp_path / str(number))
        assert run_program(monkeypatch, capsys, flatness, *flags, *output)[0] == 0
    texts = [(tmp_path / str(number) / "flatness.json").read_text() for number in range(2)]
    assert texts[0] == texts[1]
    (row,) = json.loads(texts[0])["rows"].values()
    assert row["ratios"] == {"global": [0, 0.5, 1], "local": pytest.approx([0, 0.1, 0.2])}
    analyzed = [AnalyzedRun(run, Examined(tuple(runs))) for run in load_runs(runs[:2])]
    for direction, curves in (("random", 2), ("adversarial", 1)):
        for range_ in ("global", "local"):
            assert list(row[direction][range_]) == GROUPS
            for group, losses in row[direction][range_].items():
                assert np.shape(losses) == (2 * curves, 3)
                trained = [
                    float(one.losses.of_classes(one.groups[group]).mean(one.theta))
                    for one in analyzed
                ]
                starts = np.array(losses)[:, 0]
                np.testing.assert_allclose(starts, np.repeat(trained, curves), rtol=1e-5)
    ascent = np.array(row["adversarial"]["local"]["all"])
    assert (np.diff(ascent) > 0).all()


def test_classifier_alone_is_the_same_function_with_the_rest_held(runs):
    (run,) = load_runs(runs[2:])
    examined = Examined((run.path,), images_per_class=4)
    whole, head = AnalyzedRun(run, examined), AnalyzedRun(run, examined, "classifier")
    moved = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, head.theta)
    expected = whole.losses.mean({**whole.theta, "classifier": moved})
    assert float(head.losses.mean(moved)) == pytest.approx(float(expected), rel=1e-5)
    assert head.losses.counts.max() == 4


def test_loss_is_the_run_s_own_or_cross_entropy_of_its_scaled_logits(runs):
    (run,) = load_runs(runs[2:])
    images, labels = run.source.train, run.source.train.labels[run.split.indices]
    logits = jnp.asarray(run.predictor().logits(images.load(run.split.indices)))
    rows = jnp.arange(len(labels))
    # A cosine classifier's logits mean nothing without LDAM's scale, 30.
    plain = -jax.nn.log_softmax(30 * logits)[rows, labels].mean()
    margins = 0.5 * (run.class_counts.min() / run.class_counts[labels]) ** 0.25
    own = -jax.nn.log_softmax(30 * logits.at[rows, labels].add(-margins))[rows, labels].mean()
    for loss, expected in (("cross_entropy", plain), ("own", own)):
        one = AnalyzedRun(run, Examined((run.path,), loss=loss))
        assert float(one.losses.mean(one.theta)) == pytest.approx(float(expected), rel=1e-4)


def test_networks_trained_in_16_bits_are_examined_in_32(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[2], run)
    described = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**described, "precision": "bfloat16"}))
    short, full = (AnalyzedRun(load_runs([path])[0], Examined((path,))) for path in (run, runs[2]))
    assert float(short.losses.mean(short.theta)) == float(full.losses.mean(full.theta))


@pytest.mark.soak
def test_hessian_of_a_group_is_that_of_its_images(monkeypatch, capsys, tmp_path, runs):
    flags = ("--checkpoint", runs[2], "--scope", "classifier", "--output", tmp_path)
    steps = ("--by", "group", "--lanczos-steps", 25, "--trace-samples", 10)
    status, lines, _ = run_program(monkeypatch, capsys, hessian, *flags, *steps)
    assert status == 0
    (row,) = json.loads((tmp_path / "hessian.json").read_text())["rows"].values()
    (parts,) = row.values()
    (run,) = load_runs(runs[2:])
    assert list(parts) == GROUPS
    one = AnalyzedRun(run, Examined((run.path,)), "classifier")
    losses = one.losses.of_classes(run.class_counts < 20)
    few = parts["few"]
    assert few["images"] == run.class_counts[run.class_counts < 20].sum()
    flat, unravel = ravel_pytree(one.theta)
    dense = np.asarray(jax.hessian(lambda x: losses.mean(unravel(x)))(flat), np.float64)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert few["largest"] == pytest.approx(eigenvalues[-1], rel=1e-3)
    assert few["smallest"] == pytest.approx(eigenvalues[0], abs=1e-3 * eigenvalues[-1])
    assert abs(few["trace"] - np.trace(dense)) < 4 * few["trace_standard_error"]
    assert sum(line.startswith("| ldam") for line in lines) == len(GROUPS)


@pytest.mark.soak
def test_spectra_of_classes_go_from_head_to_tail(monkeypatch, capsys, tmp_path, runs):
    run = tmp_path / "run"
    shutil.copytree(runs[2], run)
    described = json.loads((run / "model.json").read_text())
    names = ["crane", *described["class_names"][1:-1], "crane"]
    (run / "model.json").write_text(json.dumps({**described, "class_names": names}))
    steps = ("--lanczos-steps", 1, "--trace-samples", 1, "--images-per-class", 2)
    flags = ("--checkpoint", run, "--scope", "classifier", "--output", tmp_path, *steps)
    assert run_program(monkeypatch, capsys, hessian, *flags)[0] == 0
    (row,) = json.loads((tmp_path / "hessian.json").read_text())["rows"].values()
    (classes,) = row.values()
    assert list(classes) == ["crane (0)", *names[1:-1], "crane (9)"]
    assert {part["images"] for part in classes.values()} == {2}
    sizes = [part["class_size"] for part in classes.values()]
    assert sizes == sorted(sizes, reverse=True) == list(load_runs(runs[2:])[0].class_counts)


def test_steps_of_a_run_can_be_compared(monkeypatch, capsys, tmp_path, runs):
    steps = sorted(int(path.name) for path in (runs[0] / "checkpoints").iterdir())
    earlier = [run / "checkpoints" / str(steps[0]) for run in runs[:2]]
    loaded = load_runs([*runs[:2], *earlier])
    assert [run.step for run in loaded] == [None, None, steps[0], steps[0]]
    assert seeds_rows(loaded) == {"SGD": [0, 1], f"SGD, step {steps[0]}": [2, 3]}
    assert seeds_rows(loaded[2:3]) == {f"SGD, step {steps[0]}": [0]}
    both = load_runs([*runs[:2], runs[2]])
    assert seeds_rows(both) == {"SGD": [0, 1], "ldam": [2]}
    assert list(seeds_rows(load_runs([runs[2], runs[1]]))) == ["SGD", "ldam"]
    assert [run.label for run in both] == ["sgd/seed0", "sgd/seed1", "ldam"]
    first, later = (ravel_pytree(run.predictor().variables)[0] for run in (loaded[2], loaded[0]))
    assert not np.array_equal(first, later)
    assert common_destination(loaded, None, "hessian") == runs[0].parent / "hessian"
    assert common_destination(loaded[::2], None, "hessian") == runs[0] / "hessian"
    assert common_destination(both, None, "hessian") == runs[2].parent / "hessian"
    flags = ("--checkpoint", earlier[0], "--output", tmp_path, *QUICK[landscape])
    status, _, errors = run_program(monkeypatch, capsys, landscape, *flags)
    assert status == 0
    assert any("is not drawn as a trajectory" in line and "got 1" in line for line in errors)
    assert errors[-2] == f"  python3 -m experiments.hessian --checkpoint {earlier[0]}"
    assert errors[-1] == f"  python3 -m experiments.report {runs[0]}"


def no_run(run):
    shutil.rmtree(run / "checkpoints")


def truncated(run):
    for file in (run / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def earlier_recipe(run):
    (run / "recipe.json").write_text(json.dumps({"dataset": "digits", "kind": 7}))


def no_text(run):
    change_recipe(run, "data", normalization=3)


def no_numbers(run):
    described = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**described, "mean": ["a"]}))


def unknown_stage(run):
    change_recipe(run, "stages", 0, epochs="many")


def own_loss(run):
    change_recipe(run, "stages", 0, loss={"name": "mine"})


def other_size(run):
    change_recipe(run, "data", image_size=9)


def nothing(run):
    del run


@pytest.mark.parametrize(
    ("damage", "suffix", "flags", "message"),
    [
        (no_run, "", (), "must have a checkpoint, got none"),
        (truncated, "", (), "must be readable"),
        (earlier_recipe, "", (), "recipe.json must have format 2, got 0: another version of"),
        (no_text, "", (), "recipe.json must hold a recipe: "),
        (
            own_loss,
            "",
            (),
            "stages[0].loss must be a part of jaxlt's, got mine: a part of your own",
        ),
        (other_size, "", (), "data.image_size must be the height in model.json, 8, got 9"),
        (no_numbers, "", (), "model.json: mean[0] must be a number, got 'a'"),
        (unknown_stage, "", (), "recipe.json must hold a recipe: "),
        (nothing, "nowhere", (), "must hold a readable model.json"),
        (nothing, "checkpoints/7", (), "step must be that of a checkpoint"),
        (nothing, "checkpoints/best", (), "must be named by its step, a number"),
        (nothing, "", ("--images-per-class", 0), "images_per_class must be at least 1, got 0"),
        (nothing, "", ("--output", __file__), "must be a writable directory"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_analyzed_is_told_in_one_line(
    monkeypatch, capsys, tmp_path, runs, damage, suffix, flags, message
):
    run = tmp_path / "run"
    shutil.copytree(runs[2], run)
    damage(run)
    before = files_of(tmp_path)
    arguments = ("--checkpoint", run / suffix, *QUICK[flatness], *flags)
    status, out, errors = run_program(monkeypatch, capsys, flatness, *arguments)
    assert status == 2
    assert not out
    assert message in errors[-1]
    assert errors[-1].startswith("error: ")
    assert not any("Traceback" in line for line in errors)
    assert not any("ETA" in line for line in errors), "found out after all was computed"
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        (flatness, ("--points", 1), "points must be at least 2, got 1"),
        (flatness, ("--local-range", 0), "local_range must be positive and finite, got 0.0"),
        (flatness, ("--seeds", 1, 1), "seeds must be different, got 1 1"),
        (landscape, ("--reach", "inf"), "reach must be positive and finite, got inf"),
        (hessian, ("--vectors", 0), "vectors must be at least 1, got 0"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(monkeypatch, capsys, runs, program, flags, message):
    status, _, errors = run_program(monkeypatch, capsys, program, "--checkpoint", runs[0], *flags)
    assert (status, errors) == (2, [f"error: {message}"])


def test_help_waits_for_no_network_and_no_picture():
    names = ", ".join(program.__name__ for program in QUICK)
    code = (
        f"import sys\nimport {names}\n"
        "assert not {'flax', 'matplotlib', 'matfree', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_networks_of_other_shapes_share_no_directions(monkeypatch, capsys, tmp_path, runs):
    flags = ("--checkpoint", runs[0], runs[2], "--output", tmp_path / "out")
    status, _, errors = run_program(monkeypatch, capsys, landscape, *flags)
    assert status == 2
    assert "must have one network to share directions" in errors[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_runs_of_other_groups_or_classes_are_not_drawn_together(
    monkeypatch, capsys, tmp_path, runs, order
):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    change_recipe(run, "evaluation", few_below=3)
    flags = ("--checkpoint", *[runs[0], run][::order], "--output", tmp_path / "out")
    status, _, errors = run_program(monkeypatch, capsys, flatness, *flags)
    assert status == 2
    assert "must have images of the same groups of classes to be shown together" in errors[-1]
    described = json.loads((run / "model.json").read_text())
    names = [f"class {name}" for name in described["class_names"]]
    (run / "model.json").write_text(json.dumps({**described, "class_names": names}))
    shutil.copy(runs[0] / "recipe.json", run)
    status, _, errors = run_program(monkeypatch, capsys, hessian, *flags)
    assert status == 2
    assert "must have images of the same classes to be shown together" in errors[-1]
    assert not any("ETA" in line for line in errors)
    assert not (tmp_path / "out").exists()


def test_losses_that_are_of_no_image_alone_are_refused(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[2], run)
    change_recipe(run, "stages", 0, loss={"name": "gcl"})
    with pytest.raises(UsageError, match=r"must be cross_entropy for run .*gcl, is none of each"):
        AnalyzedRun(load_runs([run])[0], Examined((run,), loss="own"))
