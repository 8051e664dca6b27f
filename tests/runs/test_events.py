import math

import numpy as np
import pytest
import tensorflow as tf

from jaxlt.recipes import Evaluation, Optimizer, Small, Stage, named, train
from jaxlt.recipes.named import vary
from jaxlt.recipes.optimizer import MultiStep
from jaxlt.recipes.schedule import Constant
from jaxlt.runs.run import Events


def test_tensorflow_reads_what_is_written(tmp_path):
    events = Events(tmp_path / "events", 21)
    events.add({"loss": 7.5, "measurement/sharpness/few": 0.25}, 30)
    # On disk although the file is open.
    (file,) = (tmp_path / "events").iterdir()
    version, start, *points = list(tf.compat.v1.train.summary_iterator(str(file)))
    assert version.file_version == "brain.Event:2"
    # From here on TensorBoard hides what earlier files say.
    assert (start.step, start.session_log.status) == (21, 1)
    values = [(point.step, *point.summary.value) for point in points]
    assert [(step, value.tag, value.simple_value) for step, value in values] == [
        (30, "loss", 7.5),
        (30, "measurement/sharpness/few", 0.25),
    ]
    events.close()


def test_a_run_shows_its_pace(tmp_path):
    # Evaluated after two, four and five epochs.
    first = Stage(
        epochs=5, batch_size=32, optimizer=Optimizer(lr=0.2, schedule=MultiStep(warmup=2))
    )
    recipe = vary(
        named("sgd_digits"),
        network=Small(architecture="mlp"),
        stages=(first,),
        evaluation=Evaluation(epochs=2),
    )
    run = train(recipe, tmp_path / "run")
    curves = {}
    for file in (run.path / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    per_epoch = len(run.split.indices) / 32
    # Counted from one, epochs 1 to 5 warm up to the peak, and fall in the last tenth.
    rates = {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.2, 5: 0.2e-4}
    steps = [record["step"] for record in run.metrics()]
    wanted = [rates[math.floor((step - 1) / per_epoch) + 1] for step in steps]
    assert [step for step, _ in curves["learning_rate"]] == steps
    np.testing.assert_allclose([rate for _, rate in curves["learning_rate"]], wanted, rtol=1e-6)
    assert [step for step, _ in curves["images_per_second"]] == steps
    assert min(speed for _, speed in curves["images_per_second"]) > 0
    assert {"accuracy", "few", "train_loss", "test_loss"} < curves.keys()
    # What a clock says is in no file that a resumed run repeats.
    assert not {"learning_rate", "images_per_second"} & run.metrics()[0].keys()


def test_pace_by_hand():
    stage = Stage(epochs=10, batch_size=50, optimizer=Optimizer(lr=0.4, schedule=Constant()))
    found = stage.pace(1_000, 20, 40, 2.0)
    assert found == {"learning_rate": pytest.approx(0.4), "images_per_second": 500.0}
    # No time was counted yet.
    assert list(stage.pace(1_000, 0, 1, 0.0)) == ["learning_rate"]
