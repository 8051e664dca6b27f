"""The library trains recipes in a call, with callbacks and parts of one's own, from the wheel."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import nbclient
import nbformat
import optax
import pytest

import jaxlt
from jaxlt import UsageError, recipes
from jaxlt.recipes.recipe import code_version

ROOT = Path(__file__).parents[2]
DIGITS = recipes.Data(source=recipes.Digits(), profile=recipes.Exponential(imbalance_factor=10.0))


def recipe_of(method=None, epochs=2):
    stage = recipes.Stage(
        epochs=epochs,
        batch_size=64,
        method=recipes.SGD() if method is None else method,
        augmentation=recipes.Augmentation(shift="none"),
    )
    return recipes.Recipe(
        data=DIGITS,
        network=recipes.Small(architecture="mlp"),
        stages=(stage,),
        evaluation=recipes.Evaluation(epochs=1),
    )


class Halving(recipes.Method, frozen=True, tag="halving"):
    """SAM whose radius halves each epoch: a method of a user's own."""

    label = "Halving"
    first_radius: float = 0.1
    """Radius in the first epoch."""

    def build(self, class_counts, clock, mask=None, phase=0):
        def radius(step):
            return self.first_radius * 0.5 ** (step // clock.steps(1))

        return jaxlt.sam(radius, mask=mask)


def test_callbacks_get_every_record_and_the_run_can_be_read(tmp_path):
    records = []
    execution = recipes.Execution(measure_every=4)
    run = recipes.train(
        recipe_of(), tmp_path / "run", seed=1, callbacks=[records.append], execution=execution
    )
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert records == lines
    assert [one for one in records if "measurement" not in one] == run.metrics()
    assert {"measurement"} <= {name for one in records for name in one}
    assert run.result["accuracy"] == run.metrics()[-1]["accuracy"] > 0.3
    assert set(run.restore()) == {"params", "batch_stats"}
    assert len(run.predictor().class_names) == 10


def test_what_is_begun_goes_on_and_another_recipe_is_refused(tmp_path):
    run = recipes.train(recipe_of(), tmp_path / "run")
    before = (run.path / "metrics.jsonl").read_bytes()
    again = recipes.train(recipe_of(), tmp_path / "run")
    assert (again.path / "metrics.jsonl").read_bytes() == before
    with pytest.raises(UsageError, match=r"got another: .*epochs is 2 there and 3 here.*--workdir"):
        recipes.train(recipe_of(epochs=3), tmp_path / "run")
    with pytest.raises(UsageError, match=r"^recipe must be a Recipe, such as named.*, got sgd_dig"):
        recipes.train("sgd_digits", tmp_path / "other")
    with pytest.raises(UsageError, match=r"^seed must be an integer, got a"):
        recipes.train(recipe_of(), tmp_path / "other", seed="a")
    with pytest.raises(UsageError, match=r"^callbacks must be a list of functions, got 3"):
        recipes.train(recipe_of(), tmp_path / "other", callbacks=[3])
    assert not (tmp_path / "other").exists()


def test_a_method_of_ones_own_from_outside_the_package(tmp_path):
    """It trains, its radius halves, and the run knows it by its name and fields."""
    radii = []

    def remember(record):
        radii.extend(record.get("measurement", {}).get("perturbation_norm", []))

    steps = recipes.Clock(390, 64, 2).steps(1)
    run = recipes.train(
        recipe_of(Halving()),
        tmp_path / "run",
        callbacks=[remember],
        execution=recipes.Execution(measure_every=1),
    )
    assert radii[0] == pytest.approx(0.1, rel=1e-5)
    assert radii[-1] == pytest.approx(0.05, rel=1e-5)
    assert len(radii) > steps
    stored = json.loads((run.path / "recipe.json").read_text())["recipe"]["stages"][0]["method"]
    assert stored == {"name": "halving", "first_radius": 0.1}
    with pytest.raises(UsageError, match=r"first_radius is 0.1 there and 0.2 here"):
        recipes.train(recipe_of(Halving(first_radius=0.2)), tmp_path / "run")
    assert recipe_of(Halving()).shortened(1).first.epochs == 1


def test_the_code_of_a_run_is_the_package_and_its_own_parts_whatever_program_runs(monkeypatch):
    package = code_version()
    assert code_version(recipe_of()) == package
    assert code_version(recipe_of(Halving())) != package
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    assert code_version(recipe_of()) == package


def test_the_packages_data_are_part_of_its_code(tmp_path):
    """Such as the policy of AutoAugment."""
    package = Path(jaxlt.__file__).parent
    shutil.copytree(package, tmp_path / "jaxlt")
    program = "from jaxlt.recipes.recipe import code_version; print(code_version())"
    versions = []
    for place in ("", "recipes/named/published.json", "data/augment/autoaugment_cifar10.json"):
        if place:
            file = tmp_path / "jaxlt" / place
            file.write_text(file.read_text() + "\n")
        command = [sys.executable, "-c", program]
        versions.append(subprocess.check_output(command, cwd=tmp_path, text=True))
    assert versions[0].strip() == code_version()
    assert len(set(versions)) == 3


def test_a_loss_of_ones_own():
    class Squared(recipes.Loss, frozen=True, tag="squared"):
        def build(self, class_counts):
            return lambda logits, labels, moment: optax.squared_error(logits).sum(axis=-1)

    stage = recipes.Stage(loss=Squared())
    assert stage.row_losses
    losses = stage.build_loss((3, 2))(jnp.ones((4, 2)), None, None)
    assert losses.shape == (4,)


@pytest.mark.soak
def test_a_notebook_trains_and_shows_a_bar(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "from jaxlt import recipes\n"
        'run = recipes.train(recipes.named("sgd_digits").shortened(1), "run")\n'
        'run.result["step"]'
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=place).execute()
    shown = [output.data for output in cell.outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert int(shown[-1]["text/plain"]) > 0


@pytest.mark.soak
def test_the_wheel_trains_from_an_empty_directory(tmp_path):
    """With nothing but the wheel's own contents to import jaxlt from."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.startswith("experiments")]
        archive.extractall(installed)
    program = f"""
import jaxlt
assert jaxlt.__file__.startswith({str(installed)!r}), jaxlt.__file__
from jaxlt import recipes
recipe = recipes.named("sgd_digits").shortened(2)
run = recipes.train(recipe, "runs/mine", seed=0, callbacks=[lambda record: None])
print(run.result["accuracy"], len(run.metrics()), len(run.predictor().class_names))
run.restore()
"""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    accuracy, evaluations, classes = finished.stdout.split()
    assert float(accuracy) > 0.1
    assert (int(evaluations), int(classes)) == (1, 10)
    assert [path.name for path in empty.iterdir()] == ["runs"]
