"""Wall time of generated runs: they train through the library's own program and pipeline."""

import sys

import jax
import numpy as np
import pytest

from experiments import command_line, wall_time
from experiments.wall_time import Arguments, RunTime, format_times
from jaxlt.recipes import Small


def cells(text):
    rows = [line for line in text.splitlines() if line.startswith("|")]
    headers, _, *bodies = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    return [dict(zip(headers, body, strict=True)) for body in bodies]


@pytest.mark.parametrize(("members", "methods"), [(1, ["sgd"]), (2, ["sgd", "cc_sam"])])
def test_a_trial_run_prints_its_table(monkeypatch, capsys, members, methods):
    flags = ["--steps", "3", "--network", "mlp", "--batch-size", "64", "--num-seeds", str(members)]
    monkeypatch.setattr(sys, "argv", ["wall_time", *flags, "--methods", *methods])
    command_line.run(wall_time.main)
    printed = capsys.readouterr()
    assert f"experiments.benchmark --methods {' '.join(methods)} --batch-size 64\n" in printed.err
    rows = cells(printed.out)
    assert [row["method"] for row in rows] == methods
    assert all(float(row["images/s"]) > 0 for row in rows)
    # 2 B H (2 (D + C) + C), the matrix products of an MLP of 3072 inputs and 256 units.
    products = 2 * 64 * 256 * (2 * (3072 + 100) + 100)
    assert float(rows[0]["GFLOP/step"]) == pytest.approx(members * products / 1e9, rel=0.05)


def test_the_images_are_those_of_cifar100_lt():
    first, second = wall_time.generated_pipelines(2, batch_size=64)
    assert first.resident is second.resident
    assert first.resident.pixels.shape == (10847, 32, 32, 3)
    assert (np.bincount(first.resident.labels)[[0, 99]] == [500, 5]).all()
    draws = [next(pipeline.chunks(0, 1, 1)).payload.indices for pipeline in (first, second)]
    assert (draws[0] != draws[1]).any()


def test_all_steps_are_taken(monkeypatch):
    taken = []

    class Counting:
        compile_seconds = 0.0

        def __init__(self, *args, **options):
            del args, options

        def place(self, state):
            return state

        def cut(self, start, stop):
            return [(start, stop, 2)]

        def __call__(self, state, step, chunk):
            taken.append((step, len(chunk.labels)))
            return state, jax.numpy.zeros(len(chunk.labels))

    monkeypatch.setattr("jaxlt.training.loop.program.Program", Counting)
    arguments = Arguments(steps=5, network=Small(architecture="mlp"), batch_size=4)
    wall_time.run(arguments, "sgd", wall_time.generated_pipelines(1, 4))
    assert taken == [(0, 2), (2, 2), (4, 1)]


def test_the_floor_is_the_flops_at_the_devices_rate():
    arguments = Arguments(steps=100, batch_size=64, num_seeds=2)
    (row,) = cells(format_times(arguments, {"sgd": RunTime(20.0, 3.0, flops=5e9)}, rate=1e11))
    assert row["floor s"] == "5.0 (wall 4.0 times that)"
    assert row["images/s"] == "640"
    assert row["ms/step"] == "200.000"
    assert row["compile s"] == "3.0"


def test_the_rate_is_that_of_a_matrix_product():
    """Between a millionth and a thousand times what one core of today does."""
    assert 1e6 < wall_time.matmul_rate("float32") < 1e15


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--steps", "0"], "steps must be an integer of at least 1, got 0"),
        (["--num-seeds", "0"], "num-seeds must be an integer of at least 1, got 0"),
        (["--methods"], "methods must name at least one method"),
        (["--network", "resnet33"], "resnet33"),
    ],
)
def test_a_bad_flag_is_one_line(monkeypatch, capfd, flags, named):
    monkeypatch.setattr(sys, "argv", ["wall_time", *flags])
    with pytest.raises(SystemExit) as stop:
        command_line.run(wall_time.main)
    lines = [line for line in capfd.readouterr().err.splitlines() if "cores" not in line]
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    assert named in lines[0]
