"""The program that writes a run's network to a file."""

import re
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from PIL import Image
from small_runs import run_program, train

from experiments import export
from jaxlt import recipes
from jaxlt.evaluation import Predictor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run")


def test_a_program_of_a_run_gives_its_probabilities(monkeypatch, capsys, run):
    status, lines, errors = run_program(monkeypatch, capsys, export, run)
    assert status == 0, errors
    path = run / "export" / "model.stablehlo"
    assert lines[0] == f"{path}: {path.stat().st_size / 1e6:.2f} MB"
    assert lines[1].startswith("largest difference of a probability from the run's own: ")
    assert lines[1].endswith(", over 9 images")
    assert errors[0] == "next:"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    found = jax.export.deserialize(bytearray(path.read_bytes())).call(images)
    np.testing.assert_allclose(found["logits"], Predictor.load(run).logits(images), atol=1e-5)


def test_the_lines_of_the_document_load_it(monkeypatch, tmp_path):
    place = tmp_path / "runs/photos/focal_sam/seed0/export"
    place.mkdir(parents=True)
    sizes = jax.export.symbolic_shape("b, h, w, 3")
    function = jax.jit(lambda images: {"probabilities": images.mean((1, 2))})
    exported = jax.export.export(function)(jax.ShapeDtypeStruct(sizes, "uint8"))
    (place / "model.stablehlo").write_bytes(exported.serialize())
    text = (Path(__file__).parents[2] / "experiments/README.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("program.call", "found = program.call"), names := {})
    assert names["found"].shape == (3, 3)


def test_the_run_may_lie_alone_without_its_data(monkeypatch, capsys, tmp_path, run):
    (tmp_path / "run").mkdir()
    for name in ("model.json", "checkpoints"):
        (tmp_path / "run" / name).symlink_to(run / name)
    flags = (tmp_path / "run", "--format", "safetensors", "--output", tmp_path / "a.safetensors")
    status, lines, errors = run_program(monkeypatch, capsys, export, *flags)
    assert status == 0, errors
    assert lines[1].endswith(": 0.0e+00, over 9 images")
    assert errors[0].startswith(f"run {tmp_path / 'run'} has not ended: the network is that after")
    assert errors[1].startswith("compared on random pixels, the run's images are not there: ")


def test_data_that_have_moved_can_be_given(monkeypatch, capsys, tmp_path):
    root = tmp_path / "photos"
    for number, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for image in range(5):
            color = (90 * number, 9 * image, 0)
            Image.new("RGB", (8, 8), color).save(root / name / f"{image}.png")
    source = recipes.Folder(directory=str(root))
    data = recipes.Data(source=source, profile=recipes.Native(), validation=0.2)
    recipe = recipes.Recipe(data=data, network=recipes.Small(architecture="mlp"))
    run = recipes.train(recipe.shortened(1), tmp_path / "run").path
    root.rename(tmp_path / "now")
    capsys.readouterr()
    flags = (run, "--dataset", f"folder:{root}")
    status, lines, errors = run_program(monkeypatch, capsys, export, *flags)
    assert (status, lines, len(errors)) == (2, [], 1)
    assert not (run / "export").exists()
    flags = (run, "--dataset", f"folder:{tmp_path / 'now'}")
    status, lines, errors = run_program(monkeypatch, capsys, export, *flags)
    assert status == 0, errors
    # The two that are held out, and one of them in another size.
    assert lines[1].endswith(", over 3 images")
    assert errors[0] == "next:"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "RUN must be a run's directory, got nothing"),
        (["{run}", "more"], "RUN must be one run's directory, got"),
        (["/nowhere"], "/nowhere must hold a readable model.json: No such file or directory; give"),
        (["{run}/model.json"], "Not a directory; give one that a run has written"),
        (["{run}", "--checkpoint", "best"], "checkpoint must be a step, a number, or a run's dir"),
        (["{run}", "--format", "h5"], "--format must be"),
        (["{run}", "--checkpoint", "7"], "step must be that of a checkpoint"),
        (["{run}", "--output", "/nowhere/a"], "output must be a file in a writable directory"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, run, flags, named):
    flags = [flag.format(run=run) for flag in flags]
    status, lines, errors = run_program(monkeypatch, capsys, export, *flags)
    assert (status, lines, len(errors)) == (2, [], 1), errors
    assert named in errors[0]
