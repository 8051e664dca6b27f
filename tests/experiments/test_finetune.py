"""From a folder of photos to a model: what is chosen, said, written, resumed and refused."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from small_runs import files_of, run_once, run_program

from experiments import evaluate, export, parsing, predict
from experiments.finetune import __main__ as finetune
from experiments.finetune import choices
from experiments.finetune.begun import begin
from experiments.finetune.facts import Facts
from experiments.finetune.recommended import CHOSEN, backbone_of, for_any_images, recommend
from experiments.flags import flags_of
from experiments.report import __main__ as report
from experiments.table.plan import place_of_run
from jaxlt import UsageError
from jaxlt.recipes import (
    SAM,
    SGD,
    CrossEntropy,
    FocalSAM,
    Folder,
    LogitAdjusted,
    Native,
    Recipe,
    read_recipe,
)
from jaxlt.recipes.in_words import shown

# Blanks, accents and a comma, as people name things.
NAMES = ("Ant", "Bär", "black cat", "cow", "Dachs, klein", "élan", "fish", "goat")
NAMES += ("hen", "ibis", "jay", "日本")
COUNTS = (40, 30, 24, 20, 16, 13, 11, 9, 8, 6, 5, 4)
FORMATS = (("jpg", "RGB"), ("PNG", "RGBA"), ("png", "L"), ("bmp", "P"), ("jpeg", "CMYK"))
QUICK = ("--epochs", "2", "--trial-epochs", "1", "--data.image-size", "16")


def photos(root, counts=COUNTS, names=NAMES, seed=0):
    """Writes images of mixed sizes and formats, a class of which has one color."""
    random = np.random.default_rng(seed)
    colors = np.random.default_rng(1).integers(0, 256, (len(names), 3))
    for label, (name, count) in enumerate(zip(names, counts, strict=True)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            shape = (*random.integers(20, 40, 2), 3)
            pixels = np.clip(colors[label] + random.normal(0, 20, shape), 0, 255)
            suffix, mode = FORMATS[number % len(FORMATS)]
            image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
            image.save(root / name / f"my photo {number}.{suffix}")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data of mine") / "photos"
    photos(root / "train")
    return root


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """With images to test on, too."""
    root = tmp_path_factory.mktemp("data") / "tested"
    photos(root / "train", (30, 10, 4), NAMES[:3])
    photos(root / "test", (4, 4, 4), NAMES[:3], seed=2)
    return root


def fine_tuned(monkeypatch, capfd, source, workdir, *flags):
    words = [source, *QUICK, "--workdir", workdir, *flags]
    return run_program(monkeypatch, capfd, finetune, *words)


class Trained(NamedTuple):
    workdir: Path
    out: list[str]
    err: list[str]


COMPARED = ("--baseline", "--rhos", "0.01", "0.2")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs of mine") / "photos"
    words = (*QUICK, *COMPARED, "--workdir", workdir)
    status, out, err = run_once(finetune, f"folder:{folder}", *words)
    assert status == 0, err
    return Trained(workdir, out, err)


@pytest.fixture(scope="module")
def workdir(trained):
    return trained.workdir


def test_a_folder_with_train_alone_becomes_a_model(folder, trained):
    workdir, out, err = trained
    said, shown = "\n".join(err), "\n".join(out)
    assert "186 training images in 12 classes, 40 to 4 a class" in said
    assert "a share of 0.2 of the training images is held out (--validation)" in said
    assert "no class has more than 100 training images" in said
    assert "4 short runs of 1 epoch choose focal_sam:method.rho=0.01,0.2 and sgd" in said
    recipe = read_recipe(workdir / "focal_sam" / "seed0" / "recipe.json")
    assert recipe.data.profile == Native()
    assert recipe.data.validation == 0.2
    assert recipe.first.loss == LogitAdjusted()
    method = recipe.first.method
    assert isinstance(method, FocalSAM)
    assert method.rho in (0.01, 0.2)
    plain = read_recipe(workdir / "sgd_baseline" / "seed0" / "recipe.json")
    assert (plain.first.method, plain.first.loss) == (SGD(), CrossEntropy())
    assert plain.first.epochs == recipe.first.epochs == 2
    rows = [line for line in out if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:3]] == ["SGD, CE", "Focal-SAM, LA"]
    assert "Accuracy in percent of seed 0." in shown
    for name in NAMES:
        assert re.search(rf"^\| {name} +\| +\d+ \|", shown, re.MULTILINE), name
    assert (workdir / "report.html").stat().st_size > 1000
    assert (workdir / "table.md").exists()
    run = f"'{workdir}/focal_sam/seed0'"
    assert err[-4:] == [
        "next:",
        f"  python3 -m experiments.predict {run} NEW_IMAGES --csv '{workdir}/predictions.csv'",
        f"  python3 -m experiments.evaluate {run}",
        f"  python3 -m experiments.export {run}",
    ]


def test_what_the_runs_say_of_their_images_is_said_once(trained):
    assert len(set(trained.err)) == len(trained.err)
    assert sum("training images are held out and evaluated" in line for line in trained.err) == 1


def test_the_radius_is_the_best_of_the_trials(folder, workdir):
    scores = {}
    for rho in ("0.01", "0.2"):
        run = place_of_run(workdir / "trials", f"focal_sam,rho={rho}", 0)
        result = json.loads((run / "result.json").read_text())
        assert read_recipe(run / "recipe.json").data.validation == 0.2
        accuracies = [one for one in result["per_class"] if one is not None]
        scores[float(rho)] = np.mean(accuracies)
    recipe = read_recipe(workdir / "focal_sam" / "seed0" / "recipe.json")
    best = [rho for rho, score in scores.items() if np.isclose(score, max(scores.values()))]
    assert recipe.first.method == FocalSAM(rho=min(best), gamma=2.0, sharpness_weight=0.8)


def test_the_same_command_goes_on_with_the_same_choices(folder, workdir, monkeypatch, capfd):
    files = sorted(workdir.rglob("result.json"))
    before = [file.read_bytes() for file in files]
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{folder}", workdir, *COMPARED)
    assert status == 0, err
    assert [file.read_bytes() for file in files] == before
    assert any(f"choices are those that {workdir} was begun with" in line for line in err)


def test_more_images_are_refused_with_the_remedy(folder, workdir, tmp_path, monkeypatch, capfd):
    photos(tmp_path / "more" / "train", (*COUNTS, 3), (*NAMES, "zebra"))
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{tmp_path / 'more'}", workdir)
    assert status == 2
    assert "186 training images in 12 classes" in err[-1]
    assert "got 189 training images in 13 classes" in err[-1]
    assert "another --workdir, and --init-from RUN" in err[-1]


def test_more_images_go_on_from_what_a_run_has_learned(
    folder, workdir, tmp_path, monkeypatch, capfd
):
    photos(tmp_path / "more", (*COUNTS, 3), (*NAMES, "zebra"))
    run = workdir / "focal_sam" / "seed0"
    before = [file.read_bytes() for file in sorted(run.iterdir()) if file.is_file()]
    flags = ["--epochs", "1", "--no-tune", "--init-from", run, "--workdir", tmp_path / "run"]
    status, _, err = run_program(monkeypatch, capfd, finetune, tmp_path / "more", *flags)
    assert status == 0, err
    said = "\n".join(err)
    assert "12 classes kept, 1 new (zebra)" in said
    assert "image size 16: that of the run whose weights it begins with" in said
    assert "may have been trained on some of these images" in said
    assert [file.read_bytes() for file in sorted(run.iterdir()) if file.is_file()] == before
    flags[flags.index(tmp_path / "run")] = tmp_path / "other"
    flags += ["--backbone", "dinov2:nowhere"]
    status, _, err = run_program(monkeypatch, capfd, finetune, tmp_path / "more", *flags)
    assert status == 2
    assert err == [f"error: --backbone must be none with --init-from {run}, got dinov2:nowhere"]


def test_a_run_that_lies_among_checkpoints_is_a_run(folder, workdir, tmp_path):
    path = tmp_path / "checkpoints" / "photos"
    path.parent.mkdir()
    path.symlink_to(workdir / "focal_sam" / "seed0")
    assert backbone_of(None, str(path)).image_size == 16


def test_test_images_are_reported_and_not_chosen_by(tested, tmp_path, monkeypatch, capfd):
    flags = ["--rhos", "0.05"]
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{tested}", tmp_path / "run", *flags)
    assert status == 0, err
    final = read_recipe(tmp_path / "run" / "focal_sam" / "seed0" / "recipe.json")
    assert final.data.validation == 0
    assert final.evaluation.images == "test"
    split = json.loads((tmp_path / "run" / "focal_sam" / "seed0" / "split.json").read_text())
    assert len(split["indices"]) == 44
    for run in (tmp_path / "run" / "trials").glob("*/seed0"):
        assert read_recipe(run / "recipe.json").data.validation == 0.2
        assert len(json.loads((run / "split.json").read_text())["indices"]) == 35
    assert "settings are chosen by a share of 0.2 held out" in "\n".join(err)


@pytest.fixture
def wanted(monkeypatch):
    """What is to be trained, in place of training: recipes, and what short runs choose by."""
    calls = []

    def train(recipes, workdir, options, short, **flags):
        calls.append((recipes, short))
        return recipes

    monkeypatch.setattr(finetune, "train", train)
    monkeypatch.setattr(finetune, "_report", lambda *some: None)
    return calls


def test_any_flag_of_a_recipe_changes_what_is_chosen(tested, tmp_path, wanted, monkeypatch, capfd):
    flags = ["--method", "sam", "--method.rho", "0.3", "--batch-size", "4", "--optimizer.lr=0.02"]
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{tested}", tmp_path / "run", *flags)
    assert status == 0, err
    [(recipes, short)] = wanted
    first = recipes["sam"].first
    assert (first.method, first.batch_size, first.optimizer.lr) == (SAM(rho=0.3), 4, 0.02)
    assert short is None
    assert "no radius is chosen by short runs: it is given" in err
    said = next(line for line in err if line.startswith("in place of what is chosen above: "))
    assert "--epochs 2 --method sam --method.rho 0.3" in said
    assert "--data.image-size 16" in said
    assert "--optimizer.lr 0.02" in said
    assert "--loss" not in said


def test_the_radius_of_the_method_that_is_chosen_is_a_flag(
    tested, tmp_path, wanted, monkeypatch, capfd
):
    flags = ["--method.rho", "0.02", "--loss.tau", "2"]
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{tested}", tmp_path / "run", *flags)
    assert status == 0, err
    [(recipes, _)] = wanted
    first = recipes["focal_sam"].first
    assert isinstance(first.method, FocalSAM)
    assert first.method.rho == 0.02
    assert first.loss == LogitAdjusted(tau=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "SOURCE must be images with a class each, got nothing"),
        (["folder:nowhere"], "nowhere"),
        (["~nobody-here"], "SOURCE must be a directory of images or such as folder:photos"),
        (["photos"], "SOURCE must be a directory of images or such as folder:photos, got photos"),
        (["digits", "--validation", "1"], "validation must be in [0, 1), got 1.0"),
        (["digits", "--epoch", "1"], "--epoch"),
        (["digits", "--data.source", "idx:x"], "--data.source must be left out"),
        (["digits", "--rhos", "none"], "rhos must name at least one rho, got none"),
        (["digits", "--rhos", "0.1", "-1"], "rhos must be finite and at least 0, got 0.1 -1"),
        (["digits", "--rhos", "inf"], "rhos must be finite and at least 0, got inf"),
        (["digits", "--workdir", "/proc/x"], "workdir must be a writable directory, got /proc/x"),
        (["digits", "--workdir", "/etc/hosts"], "/etc/hosts is none; give another"),
        (["digits", "--trial-epochs", "1000"], "trial_epochs must be at most the epochs of a run"),
        (["digits", "--backbone", "resnet10:/dev/null"], "/dev/null"),
        (["digits", "--backbone", "vit:/dev"], "backbone must be one that can be read, got vit:/"),
        (["digits", "--method.rho", "-1"], "method.rho must be at least 0"),
        (["digits", "--seeds", "1", "1"], "seeds must be different"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_program(monkeypatch, capfd, finetune, *words)
    assert status == 2
    assert len(err) == 1
    assert said in err[0]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_is_left_alone(tmp_path, monkeypatch, capfd):
    (tmp_path / "letter.txt").write_text("mine")
    status, _, err = run_program(monkeypatch, capfd, finetune, "digits", "--workdir", tmp_path)
    assert status == 2
    assert "workdir must be new, empty or begun by this program" in err[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_what_was_chosen_before_any_run_is_chosen_anew(tmp_path):
    photos(tmp_path / "photos", (4, 3), NAMES[:2])
    place, workdir = Folder(directory=str(tmp_path / "photos")), tmp_path / "run"
    begun = begin(workdir, place, None, 0.2)
    assert begun.facts.class_counts == (4, 3)
    assert not workdir.exists()
    with begun.kept(workdir):
        pass
    next((tmp_path / "photos" / NAMES[0]).iterdir()).unlink()
    assert begin(workdir, place, None, 0.2).facts.class_counts == (3, 3)
    (workdir / "trials").mkdir()
    next((tmp_path / "photos" / NAMES[0]).iterdir()).unlink()
    with pytest.raises(UsageError, match="must be those that it was begun with"):
        begin(workdir, place, None, 0.2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--validation", "0"], "validation must be above 0 where there are no val and no test"),
        (["--data.profile", "exponential"], "--data.profile native"),
        (["--workdir", "photos/runs"], "workdir must lie outside the images, got photos/runs in"),
    ],
)
def test_a_mistake_that_images_show_leaves_nothing(monkeypatch, capfd, tmp_path, flags, said):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", (4, 3), NAMES[:2])
    before = files_of(tmp_path)
    status, _, err = run_program(monkeypatch, capfd, finetune, "folder:photos", *flags)
    assert (status, said in err[-1]) == (2, True), err
    assert files_of(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_classes_of_one_image_each_are_refused(monkeypatch, capfd, tmp_path):
    photos(tmp_path / "photos", (1, 1), NAMES[:2])
    source, workdir = f"folder:{tmp_path / 'photos'}", tmp_path / "run"
    status, _, err = fine_tuned(monkeypatch, capfd, source, workdir)
    assert status == 2
    assert "a class must have two training images or more" in err[-1]
    assert not workdir.exists()


def test_every_image_is_decoded_before_anything_is_written(monkeypatch, capfd, tmp_path):
    """Statistics of pixels are of some images alone: another would stop the training late."""
    root = photos(tmp_path / "photos", (1100, 3), NAMES[:2])
    bad = root / NAMES[0] / "my photo 1001.PNG"
    bad.write_bytes(bad.read_bytes()[:60])
    workdir = tmp_path / "run"
    status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{root}", workdir)
    assert status == 2
    assert "my photo 1001.PNG" in err[-1]
    assert "--data.unreadable skip" in err[-1]
    assert not any("training images" in line for line in err), "it must end before it chooses"
    assert not workdir.exists()


def test_a_begun_workdir_names_the_run_that_it_began_with(tmp_path, workdir):
    root, run = photos(tmp_path / "photos", (4, 3), NAMES[:2]), tmp_path / "run"
    first = str(workdir / "focal_sam" / "seed0")
    begun = begin(run, Folder(directory=str(root)), None, 0.2, ["--init_from", first])
    with begun.kept(run):
        (run / "trials").mkdir()
    with pytest.raises(
        UsageError, match=r"^--init-from of .* must be .*, as it was begun, got none"
    ):
        begin(run, Folder(directory=str(root)), None, 0.2)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("folder:/data/a,b", "a,b"),
        ('list:"/data/a",train.txt', "a"),
        ("list:/data/a,train.txt,test.txt", "a"),
        ("digits", "digits"),
    ],
)
def test_the_workdir_is_called_as_the_source(source, name):
    place = parsing.parse(Recipe(), ["--data.source", source]).data.source
    assert finetune._name(place) == name


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("train", ": names, contents of training images are not the same; put"),
        ("val", ": contents of val images are not the same; put"),
        ("test", ": contents of test images are not the same; put"),
    ],
)
def test_other_images_of_as_many_are_refused(tmp_path, part, said):
    root, workdir = tmp_path / "photos", tmp_path / "run"
    for name in ("train", "val", "test"):
        photos(root / name, (3, 3), NAMES[:2])
    begun = begin(workdir, Folder(directory=str(root)), None, 0.2)
    with begun.kept(workdir):
        (workdir / "trials").mkdir()
    before = files_of(workdir)
    now = root.rename(tmp_path / "moved")
    place = Folder(directory=str(now))
    assert begin(workdir, place, None, 0.2).facts == begun.facts
    one, other = (now / part / name / "my photo 0.jpg" for name in NAMES[:2])
    if part == "train":
        one.rename(other.with_name("from a.jpg"))
        other.rename(one.with_name("from b.jpg"))
    else:
        contents = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(contents)
    with pytest.raises(UsageError, match=f"begun with, 6 .*, got others{said}.*another --workdir"):
        begin(workdir, place, None, 0.2)
    assert files_of(workdir) == before


def test_what_was_begun_with_accents_in_another_form_goes_on(tmp_path):
    root, workdir = photos(tmp_path / "photos", (3, 3), NAMES[:2]), tmp_path / "run"
    place = Folder(directory=str(root))
    with begin(workdir, place, None, 0.2).kept(workdir):
        (workdir / "trials").mkdir()
    # As an earlier version kept them of a folder of this form.
    (root / NAMES[1]).rename(root / normalize("NFD", NAMES[1]))
    values = json.loads((workdir / "finetune.json").read_text())
    values["facts"][0] = [normalize("NFD", name) for name in NAMES[:2]]
    values["facts"][-1]["training"]["names"] = "0123456789abcdef"
    (workdir / "finetune.json").write_text(json.dumps(values))
    assert begin(workdir, place, None, 0.2).facts.class_names == NAMES[:2]


def test_a_finished_table_is_not_shown_as_of_other_images(
    tested, tmp_path, wanted, monkeypatch, capfd
):
    root, workdir = shutil.copytree(tested, tmp_path / "photos"), tmp_path / "run"
    assert fine_tuned(monkeypatch, capfd, root, workdir, "--no-tune")[0] == 0
    (workdir / "focal_sam").mkdir()
    before = files_of(workdir)
    one, other = (root / "train" / name / "my photo 0.jpg" for name in NAMES[:2])
    one.write_bytes(other.read_bytes())
    status, _, err = fine_tuned(monkeypatch, capfd, root, workdir, "--no-tune")
    assert (status, len(err), len(wanted)) == (2, 1, 1), err
    assert files_of(workdir) == before


def test_choices_of_an_earlier_version_are_refused_with_the_remedy(tmp_path):
    photos(tmp_path / "photos", (2, 2), NAMES[:2])
    place, workdir = Folder(directory=str(tmp_path / "photos")), tmp_path / "run"
    (workdir / "trials").mkdir(parents=True)
    (workdir / "finetune.json").write_text('{"format": 1}')
    with pytest.raises(UsageError, match=r"must have format 2, got 1: .*; give another --workdir"):
        begin(workdir, place, None, 0.2)


def test_help_needs_no_images(monkeypatch, capfd):
    status, out, _ = run_program(monkeypatch, capfd, finetune, "--help")
    assert status == 0
    assert out[0] == "usage: python3 -m experiments.finetune SOURCE [flags]"
    assert len(out) <= 150
    # What is chosen for any images.
    shown = " ".join(" ".join(out).split())
    assert "How the gradient is taken. [focal_sam]" in shown
    assert "Per-example loss. [logit_adjusted]" in shown
    assert "native for all images. [native]" in shown
    assert "Peak learning rate. [chosen]" in shown
    assert "Short runs have the first. [0]" in shown
    assert "--data.source" not in shown


def test_help_says_of_all_that_is_chosen_that_it_is():
    begins, changed = backbone_of(None), set()
    any_images = {flag.name: shown(flag.value) for flag in flags_of(for_any_images(begins))}
    for counts, side, num_test in (((5000, 10), 300, 0), ((10, 3), 20, 40)):
        facts = Facts(("a", "b"), counts, side, 3, True, 9, num_test, known_by={})
        for one in (facts, facts._replace(num_val=0)):
            recipe, _ = recommend(
                Folder(directory="x"), one, begins, 0.2, on_accelerator=side > 100
            )
            now = {flag.name: shown(flag.value) for flag in flags_of(recipe)}
            changed |= {name for name in now if any_images.get(name) != now[name]}
    changed = {name for name in changed if not name.startswith("data.source")}
    assert changed <= CHOSEN
    assert CHOSEN - changed <= {"method.rho"}


@pytest.mark.soak
@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_that_diverge_end_in_one_line_and_are_known_again(
    jobs, tested, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(choices, "_LR_FROM_NOTHING", 1e25)
    flags = ["--baseline", "--rhos", "0.05", "--seeds", "0", "1", "--jobs", jobs]
    said = []
    for _ in range(2):
        status, _, err = fine_tuned(monkeypatch, capfd, f"folder:{tested}", tmp_path / "a", *flags)
        assert status == 2
        assert "focal_sam_quarter_lr diverged with learning rate" in "\n".join(err)
        said.append(err[-1])
        files = [file.stat().st_mtime_ns for file in tmp_path.rglob("nonfinite_batch.json")]
        assert len(files) == 8
        said.append(files)
    assert said[:2] == said[2:]
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.soak
def test_six_commands_lead_from_a_folder_to_a_model_that_serves_and_grows(
    tmp_path, monkeypatch, capfd
):
    """A few classes with hundreds of images and many with a dozen, without a test set at first."""
    counts = (400, 260, 170, 110, 75, 50, 32, 21, 14, 9, 6, 4)
    photos(tmp_path / "My photos", counts)
    photos(tmp_path / "more", (*counts, 5), (*NAMES, "zebra"))
    photos(tmp_path / "tested", (3,) * 12, seed=5)
    first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
    run, csv = first / "focal_sam" / "seed0", tmp_path / "predictions.csv"

    def typed(program, *words):
        status, out, err = run_program(monkeypatch, capfd, program, *words)
        assert status == 0, err
        return "\n".join((*out, *err))

    quick = ["--epochs", "3", "--trial-epochs", "1", "--rhos", "0.05"]
    said = typed(finetune, tmp_path / "My photos", "--workdir", first, *quick)
    assert "1151 training images in 12 classes, 400 to 4 a class" in said
    assert "written to" in typed(report, first / "focal_sam")
    typed(predict, run, tmp_path / "tested", "--csv", csv)
    predicted = csv.read_text().splitlines()[1:]
    assert len(predicted) == 36
    # A class has one color, which a network that has learned tells.
    assert sum(f"/{name}/" in line for line in predicted for name in NAMES) == 36
    assert "largest difference" in typed(export, run)
    assert (run / "export" / "model.stablehlo").stat().st_size > 1000
    said = typed(finetune, tmp_path / "more", "--workdir", second, "--init-from", run, *quick)
    assert "12 classes kept, 1 new (zebra)" in said
    table = typed(
        evaluate, second / "focal_sam" / "seed0", "--dataset", f"folder:{tmp_path}/tested"
    )
    for name in NAMES:
        assert f"| {name} " in table
