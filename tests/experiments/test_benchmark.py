"""The benchmark program: its batch, its timing, and what it writes."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from experiments import command_line
from experiments.benchmark import __main__ as program
from experiments.benchmark.cases import CASES, make_problem
from experiments.benchmark.compiled_step import StepCost, StepMemory, Training, compile_step
from experiments.benchmark.report import draw, format_costs
from experiments.benchmark.timing import alternate, paired_ratio
from jaxlt.recipes import Small
from jaxlt.recipes.part import part_name

SMALL: dict[str, Any] = {"batch_size": 16, "num_classes": 10, "image_size": 4, "tail_share": None}
MLP = Small(architecture="mlp")


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, flags)])
    command_line.run(program.main)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny benchmark, run once."""
    workdir = tmp_path_factory.mktemp("benchmark")
    flags = ["--network", "mlp", "--image-size", 4, "--batch-size", 16, "--num-classes", 10]
    flags += ["--methods", "sam", "cc_sam_all", "--rounds", 3, "--workdir", workdir]
    with pytest.MonkeyPatch.context() as patch:
        run(patch, *flags)
    return workdir


def test_results_hold_every_number_of_the_run(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["cases"]) == ["sgd", "sam", "cc_sam_all"]
    for case in results["cases"].values():
        assert len(case["seconds"]) == 3
        assert all(case[name] > 0 for name in ("flops", "bytes", "peak_memory", "compile_seconds"))
    assert results["machine"]["jax"] == jax.__version__
    assert results["machine"]["cores"] >= 1
    assert results["settings"]["rounds"] == 3
    assert results["settings"]["network"]["architecture"] == "mlp"


def test_the_table_is_that_of_the_results(finished):
    cases = json.loads((finished / "results.json").read_text())["cases"]
    costs = {name: StepCost(**values) for name, values in cases.items()}
    assert (finished / "table.md").read_text() == format_costs(costs) + "\n"
    assert image.imread(finished / "ratios.png").shape[0] > 500


def test_steps_are_compiled_as_training_compiles_them():
    problem = make_problem(Small(), **SMALL | {"image_size": 8})
    training = Training(problem, problem.stage("sgd"))
    state = jax.eval_shape(lambda: training.initialize(0))
    compiled: Any = training.lower(state, (problem.images, problem.labels)).compile()
    assert "opt-barrier" in compiled.as_text()


def test_memory_alone_is_counted_without_a_step(monkeypatch, tmp_path, capfd):
    flags = ["--network", "mlp", "--image-size", 4, "--batch-size", 16, "--num-classes", 10]
    flags += ["--methods", "sam", "--memory-only", "--workdir", tmp_path]
    run(monkeypatch, *flags)
    memory = json.loads((tmp_path / "results.json").read_text())["memory"]
    assert list(memory) == ["sgd", "sam"]
    problem = make_problem(MLP, **SMALL)
    for case, found in memory.items():
        assert StepMemory(**found).peak == compile_step(problem, case).cost.peak_memory
    table, printed = (tmp_path / "table.md").read_text(), capfd.readouterr()
    assert table in printed.out
    assert "next:\n  python3 -m experiments.wall_time\n" in printed.err
    assert not (tmp_path / "ratios.png").exists()
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *flags, "--peer", "torch")
    assert "peer must be none with memory_only, got torch" in capfd.readouterr().err


def test_flops_are_those_of_the_networks_matrix_products():
    """An MLP of D inputs, H hidden units and C classes does 2 B H (D + C) FLOPs forwards.

    Backwards it does that for the weights, and for the hidden units 2 B H C.
    """
    problem = make_problem(MLP, **SMALL | {"batch_size": 128, "image_size": 16})
    batch, inputs, hidden, classes = 128, 3 * 16**2, 256, 10
    products = 2 * batch * hidden * (2 * (inputs + classes) + classes)
    step = compile_step(problem, "sgd")
    assert step.cost.flops == pytest.approx(products, rel=0.03)
    state_bytes = 2 * 4 * (inputs * hidden + hidden + hidden * classes + classes)
    assert step.cost.peak_memory > state_bytes + 4 * problem.images.size


def test_the_path_measured_is_the_one_that_the_batch_takes():
    """Of a convolutional network's batch of 16, two tail images fit the smallest program."""
    few, all_tail = (
        make_problem(Small(architecture="small_conv"), **{**SMALL, "tail_share": share})
        for share in (1 / 8, 1.0)
    )
    cheap, dear = (compile_step(p, "sse_sam_stage2").cost.flops for p in (few, all_tail))
    assert cheap < 0.7 * dear


def test_a_step_trains():
    step = compile_step(make_problem(MLP, **SMALL), "sam")
    before = step._state
    step()
    assert int(step._state.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_a_step_of_every_fifth_is_the_mean_of_a_whole_one_and_four_of_sgd():
    problem = make_problem(MLP, **SMALL)
    sgd, whole = (compile_step(problem, case).cost.flops for case in ("sgd", "focal_sam"))
    step = compile_step(dataclasses.replace(problem, every=5), "focal_sam")
    # In a network so small what is done to each parameter counts too.
    assert step.cost.flops == pytest.approx((whole + 4 * sgd) / 5, rel=0.2)
    step()
    assert int(step._state.step) == 5
    assert step.of_one([5.0, 10.0]) == [1.0, 2.0]
    assert compile_step(dataclasses.replace(problem, every=5), "sgd").of_one([3.0]) == [3.0]


def test_directions_from_half_the_batch_cost_half_a_pass():
    """Focal-SAM's own cost a backward pass; those of half the batch half of two passes."""
    problem = make_problem(Small(architecture="small_conv"), **SMALL | {"image_size": 16})
    half = dataclasses.replace(problem, ascent_share=0.5)
    sgd, whole, part = (
        compile_step(one, case).cost.flops
        for one, case in ((problem, "sgd"), (problem, "focal_sam"), (half, "focal_sam"))
    )
    assert (whole - part) / sgd == pytest.approx(2 / 3 - 1 / 2, abs=0.06)


def test_options_that_make_steps_cheaper(monkeypatch, tmp_path, capfd):
    flags = ["--network", "mlp", "--image-size", 4, "--batch-size", 16, "--num-classes", 10]
    flags += ["--rounds", 1, "--workdir", tmp_path, "--ascent-share", 0.5]
    monkeypatch.setattr(program, "CASES", ("sgd", "sam", "cc_sam"))
    run(monkeypatch, *flags)
    assert list(json.loads((tmp_path / "results.json").read_text())["cases"]) == ["sgd", "sam"]
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *flags, "--peer", "torch")
    assert "peer must be none with every or ascent_share" in capfd.readouterr().err


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_an_optimizer_of_its_name(case):
    problem = make_problem(MLP, **SMALL)
    stage = problem.stage(case)
    assert case.startswith(part_name(stage.method))
    stage.build_optimizer(problem.class_counts)


@given(
    tail_share=st.floats(0, 1),
    batch_size=st.integers(1, 200),
    num_classes=st.integers(2, 150),
)
def test_tail_share_is_that_of_the_batch(tail_share, batch_size, num_classes):
    problem = make_problem(
        MLP,
        batch_size=batch_size,
        num_classes=num_classes,
        image_size=1,
        tail_share=tail_share,
    )
    assert problem.labels.shape == (batch_size,)
    assert problem.count_tail() == round(tail_share * batch_size)


def test_labels_come_from_the_prior():
    problem = make_problem(MLP, **SMALL | {"batch_size": 20000, "num_classes": 100})
    counts = np.array(problem.class_counts)
    assert (counts.max(), counts.min(), counts.sum()) == (500, 5, 10847)
    shares = np.bincount(problem.labels, minlength=100) / 20000
    assert np.abs(shares - counts / counts.sum()).max() < 0.005
    # 65 of the classes have fewer than 100 images, 18.7% of all.
    assert problem.count_tail() / 20000 == pytest.approx(0.187, abs=0.01)


def test_steps_take_turns_and_the_first_round_does_not_count(clock):
    calls = []

    def step(name, seconds):
        def call():
            calls.append(name)
            clock.now += seconds

        return call

    first = {"a": step("a", 0.0), "b": step("b", 2.0), "c": step("c", 0.0)}
    times, others = alternate([first, {"x": step("x", 0.0)}], rounds=2)
    assert "".join(calls) == "abcx" + "bcax" + "cabx"
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2, "c": 2}
    assert min(times["b"]) >= 2 > max(times["a"])
    assert list(others) == ["x"]


def test_a_ratio_is_taken_within_each_round():
    """The machine is ten times slower in the last two of five rounds; the ratio stays 2."""
    sgd = [1.0, 1.0, 1.0, 10.0, 10.0]
    assert paired_ratio([2.0, 2.0, 2.0, 20.0, 20.0], sgd) == 2.0


def test_quartiles_are_those_of_the_rounds():
    cost = dataclasses.replace(cost_of(1), seconds=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert "| 200 to 400 |" in " ".join(format_costs({"sgd": cost}).split())


def cost_of(scale, torch_seconds=None):
    return StepCost(
        flops=scale * 1e9,
        bytes=scale * 2e9,
        peak_memory=round(scale * 2**20),
        trace_seconds=scale,
        compile_seconds=scale,
        seconds=[0.1 * scale] * 3,
        torch_seconds=torch_seconds,
    )


def test_the_table_shows_ratios_to_sgd_and_to_the_peer():
    rows = format_costs(
        {
            "sgd": cost_of(1, [0.2] * 3),
            "sam": cost_of(2, [0.5] * 3),
            "cc_sam_all": cost_of(4),
        }
    ).splitlines()
    headers, _, _, sam, cc_sam = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    cells = dict(zip(headers, sam, strict=True))
    assert cells["GFLOP"] == "2 (2.00)"
    assert cells["MiB"] == "2 (2.00)"
    assert cells["compile s"] == "4 (2.00)"
    assert (cells["ms"], cells["quartiles"], cells["ratio"]) == ("200", "200 to 200", "2.00")
    assert (cells["torch ms"], cells["torch ratio"], cells["jax/torch"]) == ("500", "2.50", "0.40")
    assert cc_sam[-3:] == ["-", "-", "-"]


def test_without_a_peer_the_table_has_no_column_for_it():
    assert "torch" not in format_costs({"sgd": cost_of(1)})


def test_the_picture_takes_a_case_without_peer(tmp_path):
    draw(
        {"sgd": cost_of(1, [0.2] * 3), "cc_sam_all": cost_of(4)},
        "title",
        tmp_path / "ratios.png",
    )
    assert image.imread(tmp_path / "ratios.png").shape[0] > 500


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--rounds", "0"], "rounds must be an integer of at least 1, got 0"),
        (["--batch-size", "0"], "batch-size must be an integer of at least 1, got 0"),
        (["--num-classes", "1"], "num_classes must be at least 2, got 1"),
        (["--image-size", "0"], "image-size must be an integer of at least 1, got 0"),
        (["--tail-share", "1.5"], "tail-share must be between 0 and 1, or none, got 1.5"),
        (["--methods", "adam"], "adam"),
        (["--methods", "sam", "sam"], "methods must be different, got sam sam"),
        (["--network", "resnet33"], "resnet33"),
        (
            ["--network.micro-batch", "4", "--network", "resnet20"],
            "network.micro_batch must be none",
        ),
        (["--peer", "numpy"], "numpy"),
    ],
)
def test_a_bad_flag_is_one_line_and_writes_nothing(monkeypatch, capfd, tmp_path, flags, named):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--network", "mlp", *flags, "--workdir", tmp_path / "new")
    lines = capfd.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    assert named in lines[0]
    assert not (tmp_path / "new").exists()


def test_a_peer_that_is_not_installed(monkeypatch, capfd, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "experiments.benchmark.torch_steps", raising=False)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--network", "mlp", "--peer", "torch", "--workdir", tmp_path / "new")
    assert stop.value.code == 2
    assert capfd.readouterr().err == (
        "error: peer torch must be installed, got none: python3 -m pip install -e '.[peer]'\n"
    )
    assert not (tmp_path / "new").exists()


def test_batch_norm_leaves_out_cc_sam_over_all_parameters(caplog):
    caplog.set_level("INFO")
    problem = make_problem(Small(architecture="resnet8"), **SMALL)
    arguments = program.Arguments(num_classes=10)
    assert program._choose(arguments, problem) == CASES[:-1]
    assert "cc_sam_all is left out" in caplog.text
    asked = program.Arguments(num_classes=10, methods=("cc_sam_all",))
    assert program._choose(asked, problem) == ("sgd", "cc_sam_all")
    other = make_problem(MLP, **SMALL)
    assert program._choose(program.Arguments(num_classes=10), other) == CASES


def test_it_is_a_program_whose_help_needs_no_training_library():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['benchmark', '--help']\n"
        "try:\n"
        "    runpy.run_module('experiments.benchmark', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "assert not {'flax', 'matplotlib', 'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--tail-share" in done.stdout
