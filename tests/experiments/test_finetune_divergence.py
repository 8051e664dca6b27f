"""What `finetune` does where training diverges: lower rates under new names, found on the disk."""

import shlex

import pytest
from small_runs import run_program
from written_runs import change_json, write_json, write_run

from experiments.finetune import __main__ as finetune
from experiments.finetune.facts import Facts
from experiments.finetune.recommended import baseline_of
from experiments.finetune.training import ShortRuns, train
from experiments.report import document
from experiments.table import program
from experiments.table.program import Options, train_finite
from jaxlt import UsageError
from jaxlt.recipes import FocalSAM
from jaxlt.recipes.named import named, vary
from jaxlt.recipes.recipe import Execution

RECIPE = vary(named("focal_sam_digits"), method=FocalSAM(), lr=0.02, validation=0.2)
RECIPES = {"focal_sam": RECIPE, "sgd_baseline": baseline_of(RECIPE)}
FACTS = Facts(("cat", "dog"), (40, 10), 8, 1, are_files=False, num_val=0, num_test=0, known_by={})
SHORT = ShortRuns(FACTS, 0.2, 1, (0.01, 0.05))
SEEDS = Options((0, 1))


class Training:
    """In place of training: writes what it leaves, of runs that diverge what those leave."""

    def __init__(self, diverges):
        self.diverges, self.begun = diverges, []

    def __call__(self, missing, options):
        for run in missing:
            self.begun.append(f"{run.name} {run.seed}")
            if not run.path.exists():
                write_run(run.path, seed=run.seed)
            identity = {**run.recipe.identity(), "seed": run.seed, "images": "digest"}
            write_json(run.path / "recipe.json", identity)
            if self.diverges(run):
                (run.path / "result.json").unlink()
                write_json(run.path / "nonfinite_batch.json", {"step": 5, "loss": "nan"})
                raise UsageError(f"training loss of {run.label} must stay finite, got nan")


@pytest.fixture
def training(monkeypatch):
    def begin(diverges):
        one = Training(diverges)
        monkeypatch.setattr(program, "_train", one)
        return one

    return begin


def rate(run):
    return run.recipe.first.optimizer.lr


def is_short(run):
    return "trials" in run.path.parts


def test_a_run_that_diverges_begins_anew_with_half_the_rate(training, tmp_path, caplog):
    seen = training(
        lambda run: not is_short(run) and run.seed == 1 and "focal" in run.name and rate(run) > 0.01
    )
    got = train(RECIPES, tmp_path, SEEDS, SHORT)
    assert list(got) == ["focal_sam_half_lr", "sgd_baseline"]
    assert got["focal_sam_half_lr"] == vary(RECIPE, lr=0.01, method=FocalSAM(rho=0.01))
    assert seen.begun[-4:] == [
        "focal_sam_half_lr,rho=0.01 0",
        "focal_sam_half_lr,rho=0.05 0",
        "focal_sam_half_lr 0",
        "focal_sam_half_lr 1",
    ]
    assert "focal_sam seed 1 diverged: loss nan at step 5, its batch is in" in caplog.text
    assert (
        "focal_sam diverged with learning rate 0.02: it begins anew with half of it, 0.01, as "
        "focal_sam_half_lr"
    ) in caplog.text
    again = training(lambda run: False)
    assert train(RECIPES, tmp_path, SEEDS, SHORT) == got
    assert again.begun == []


def test_short_runs_that_all_diverge_begin_anew_too(training, tmp_path, caplog):
    caplog.set_level("INFO")
    training(lambda run: "baseline" in run.name and rate(run) > 0.004)
    got = train(RECIPES, tmp_path, SEEDS, SHORT)
    assert list(got) == ["focal_sam", "sgd_baseline_half_lr"]
    # At first 0.00667 and 0.06 were tried, then half of each.
    assert got["sgd_baseline_half_lr"].first.optimizer.lr == 0.00333
    assert "--optimizer.lr=0.00333, the best of 65.00, diverged" in caplog.text


def test_after_an_eighth_of_the_rate_one_line_says_what_to_type(training, tmp_path, caplog):
    seen = training(lambda run: True)
    with pytest.raises(UsageError, match="learning rate of focal_sam must be such") as caught:
        train({"focal_sam": RECIPE}, tmp_path, SEEDS)
    rates = ("", "_half_lr", "_quarter_lr", "_eighth_lr")
    assert seen.begun == [f"focal_sam{one} 0" for one in rates]
    said = str(caught.value)
    assert "focal_sam_quarter_lr diverged with learning rate 0.005: it begins" in caplog.text
    assert "got 0.0025" in said
    assert f"--workdir {tmp_path}_lr0.000625 --optimizer.lr 0.000625 at its end" in said
    again = training(lambda run: True)
    with pytest.raises(UsageError) as caught:
        train({"focal_sam": RECIPE}, tmp_path, SEEDS)
    assert (str(caught.value), again.begun) == (said, [])


@pytest.mark.parametrize(
    ("skipped", "allowed", "left"),
    [(0, 0, ["focal_sam"]), (0, 1, []), (1, 1, ["focal_sam"]), (1, 2, [])],
)
def test_a_run_that_may_leave_more_steps_out_goes_on(training, tmp_path, skipped, allowed, left):
    training(lambda run: True)
    one = {"focal_sam": RECIPE}
    assert train_finite(one, tmp_path, Options((0,))) == ["focal_sam"]
    file = tmp_path / "focal_sam" / "seed0" / "nonfinite_batch.json"
    change_json(file, skipped=skipped)
    seen = training(lambda run: False)
    options = Options((0,), execution=Execution(skip_nonfinite=allowed))
    assert train_finite(one, tmp_path, options) == left
    assert seen.begun == ([] if left else ["focal_sam 0"])


def test_parameters_that_overflow_are_a_divergence(training, tmp_path, monkeypatch):
    seen = training(lambda run: False)

    def overflow(missing, options):
        if missing[0].name == "focal_sam":
            place = missing[0].path / "checkpoints"
            raise UsageError(f"parameters must stay finite, after step 4: those in {place} stay")
        seen(missing, options)

    monkeypatch.setattr(program, "_train", overflow)
    assert train_finite(RECIPES, tmp_path, SEEDS) == ["focal_sam"]
    assert seen.begun == ["sgd_baseline 0", "sgd_baseline 1"]


def test_another_failure_is_raised(monkeypatch, tmp_path):
    def failing(missing, options):
        raise UsageError("disk must have room")

    monkeypatch.setattr(program, "_train", failing)
    with pytest.raises(UsageError, match="disk must have room"):
        train_finite(RECIPES, tmp_path, SEEDS)


def typed(monkeypatch, capfd, *words):
    flags = ["digits", "--no-tune", "--rhos", "0.05", "--seeds", "0", "1", *words]
    return run_program(monkeypatch, capfd, finetune, *flags)


def test_what_was_trained_in_the_end_is_shown(training, tmp_path, monkeypatch, capfd):
    pages = []
    monkeypatch.setattr(document, "write_report", lambda runs, output: pages.append(runs))
    training(lambda run: rate(run) > 0.01)
    workdir = tmp_path / "run"
    status, out, err = typed(monkeypatch, capfd, "--workdir", workdir)
    assert status == 0, err
    run = workdir / "focal_sam_half_lr"
    assert pages == [[run / "seed0", run / "seed1"]]
    assert sum(line.startswith("| Focal-SAM, LA, half lr ") for line in out) == 1
    assert any("training images | Focal-SAM, LA, half lr |" in " ".join(one.split()) for one in out)
    assert f"  python3 -m experiments.evaluate {run / 'seed0'}" in err


def test_a_rate_that_is_given_is_kept_and_the_line_works_as_typed(
    training, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(document, "write_report", lambda *some: None)
    seen = training(lambda run: rate(run) > 0.25)
    words = ["--optimizer.lr", "0.5", "--workdir", tmp_path / "run"]
    status, _, err = typed(monkeypatch, capfd, *words)
    assert status == 2
    assert seen.begun == ["focal_sam 0"]
    said, _, rest = err[-1].partition("type the same command with ")
    assert said.startswith("error: learning rate of focal_sam must be such that its loss stays ")
    status, _, err = typed(monkeypatch, capfd, *words, *shlex.split(rest.partition(" at its ")[0]))
    assert status == 0, err
    assert seen.begun[1:] == ["focal_sam 0", "focal_sam 1"]
