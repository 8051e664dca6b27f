"""Scaling on paper: the model against numbers by hand and laws, and real steps' collectives."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_runs
from hypothesis import given
from hypothesis import strategies as st
from small_problems import quick

import experiments.scaling.__main__ as scaling
from experiments.scaling.interconnect import (
    Machine,
    Traffic,
    Work,
    gather_seconds,
    hop_seconds,
    reduce_seconds,
    step_time,
)
from experiments.scaling.partitioned_step import count_collectives
from jaxlt import UsageError

ROOT = Path(__file__).parents[2]
# Round numbers, so that the expected ones can be checked by eye.
MACHINE = Machine(
    peak_flops=100.0,
    utilization=0.5,
    devices_per_node=4,
    node_bandwidth=100.0,
    network_bandwidth=10.0,
    node_latency=1e-3,
    network_latency=1e-2,
    overlap=0.5,
    node_cores=2,
    core_images=8.0,
    host_bandwidth=1e3,
)
WORK = Work(
    flops=500.0,
    gradient_bytes=100,
    traffic=Traffic(all_reduces=3, reduced_bytes=240, all_gathers=1, gathered_bytes=8),
    images=16,
    image_bytes=10,
    backward_flops=200.0,
)


class TestByHand:
    def test_a_ring_within_a_node(self):
        # 2 * 3/4 of 200 bytes at 100 a second; 3 hops of a millisecond.
        assert reduce_seconds(200, 4, MACHINE) == pytest.approx(3.0)
        # 3 others' 8 bytes at 100 a second.
        assert gather_seconds(8, 4, MACHINE) == pytest.approx(0.24)
        assert hop_seconds(4, MACHINE) == pytest.approx(3e-3)

    def test_a_tree_of_nodes(self):
        # As within a node, and 2 * 7/8 of a fourth of 200 bytes at 10 a second.
        assert reduce_seconds(200, 32, MACHINE) == pytest.approx(3.0 + 8.75)
        # 7 other nodes' 8 bytes at 10, then 3 others' 64 bytes at 100.
        assert gather_seconds(8, 32, MACHINE) == pytest.approx(5.6 + 1.92)
        # 3 levels of a tree of 8 nodes.
        assert hop_seconds(32, MACHINE) == pytest.approx(3e-3 + 3e-2)

    def test_one_device_waits_for_nobody(self):
        time = step_time(WORK, 1, MACHINE)
        assert (time.latency, time.transfer) == (0, 0)
        # 16 images of 2 cores that make 8 a second each.
        assert time.input == 1.0
        assert time.efficiency == 1.0
        assert time.bound == "compute"

    def test_a_step_within_a_node(self):
        time = step_time(WORK, 4, MACHINE)
        # Twice around for each all-reduce, once for the all-gather.
        assert time.latency == pytest.approx(7 * 3e-3)
        # 140 bytes and the gathered ones are waited for: 2.1 and 0.24 seconds; the last 100 take
        # 1.5 seconds of the 2 that half a backward pass lasts.
        assert time.transfer == pytest.approx(2.1 + 0.24)
        # 64 images of 2 cores.
        assert time.input == 4.0
        assert time.efficiency == pytest.approx(10 / (10 + 0.021 + 2.34))

    def test_what_does_not_fit_beside_the_backward_pass_is_waited_for(self):
        time = step_time(dataclasses.replace(WORK, backward_flops=50.0), 4, MACHINE)
        assert time.transfer == pytest.approx(2.1 + 0.24 + 1.0)

    def test_images_that_are_not_there_hold_the_step_up(self):
        time = step_time(WORK, 4, dataclasses.replace(MACHINE, core_images=1.6))
        assert time.input == pytest.approx(20.0)
        assert time.efficiency == pytest.approx(0.5)
        assert time.interconnect_efficiency == pytest.approx(10 / 12.361)
        assert time.bound == "input"


sizes = st.integers(1, 10**6)
counts = st.sampled_from([1, 2, 4, 8, 16, 32, 512])


@quick
@given(sizes, sizes, counts)
def test_more_devices_are_never_more_efficient(gradient, more, devices):
    work = dataclasses.replace(
        WORK, gradient_bytes=gradient, traffic=Traffic(2, gradient + more, 1, more)
    )
    first, second = (step_time(work, n, MACHINE) for n in (devices, 2 * devices))
    assert second.efficiency <= first.efficiency
    assert second.interconnect_efficiency < first.interconnect_efficiency or devices == 1


@quick
@given(sizes, sizes, counts)
def test_more_bytes_are_less_efficient(gradient, more, devices):
    one = dataclasses.replace(WORK, gradient_bytes=gradient, traffic=Traffic(1, gradient))
    other = dataclasses.replace(one, traffic=Traffic(1, gradient + more))
    first, second = (
        step_time(work, 2 * devices, MACHINE).interconnect_efficiency for work in (one, other)
    )
    assert second < first


@quick
@given(st.integers(2, 100), counts)
def test_a_larger_batch_is_more_efficient(factor, devices):
    larger = dataclasses.replace(
        WORK,
        images=factor * WORK.images,
        flops=factor * WORK.flops,
        backward_flops=factor * WORK.backward_flops,
    )
    first, second = (
        step_time(work, 2 * devices, MACHINE).interconnect_efficiency for work in (WORK, larger)
    )
    assert second > first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_bandwidth": 0.0}, r"node_bandwidth must be positive, got 0\.0"),
        ({"network_latency": float("nan")}, r"network_latency must be positive, got nan"),
        ({"overlap": 1.5}, r"overlap must be at most 1, got 1\.5"),
    ],
)
def test_machines_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(MACHINE, **change)


def test_collectives_are_read_from_a_program():
    program = """
  %a = (f32[3,5]{1,0}, bf16[7]{0}) all-reduce(%x, %y), channel_id=1
  %b = f32[] all-reduce-start(%z), to_apply=%all-reduce.1
  %c = f32[] all-reduce-done(%b)
  %d = pred[8,2]{1,0} all-gather(%p), dimensions={0}
  %e = f32[3,5]{1,0} get-tuple-element(%a), index=0, metadata={op_name="all-reduce(x)"}
"""
    assert count_collectives(program, 8) == Traffic(2, 60 + 14 + 4, 1, 2)
    with pytest.raises(ValueError, match="got all-to-all"):
        count_collectives("%a = f32[2] all-to-all(%x)", 8)
    with pytest.raises(ValueError, match="has a loop"):
        count_collectives("%a = (s32[]) while(%x), body=%b", 8)


def run_program(*flags):
    command = [sys.executable, "-m", "experiments.scaling", *map(str, flags)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def table():
    """Rows of a table for an MLP, as words by header."""
    flags = ["--networks", "mlp", "--image-size", 8, "--num-classes", 10, "--device-batch", 4]
    flags += ["--devices", 8, 64, "--measure", 8, "--step-seconds", 0.5]
    finished = run_program(*flags)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.endswith(
        "next:\n  python3 -m experiments.input_throughput --source list:ROOT,TRAIN\n"
    )
    lines = [line for line in finished.stdout.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def reduced_gradients(row):
    return float(row["MB"].split("(")[1].rstrip(")"))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "gradients"),
    [
        ("SGD", 1),
        ("SAM", 2),
        ("ImbSAM", 3),
        ("Focal-SAM", 3),
        ("SSE-SAM, stage 1", 4),
        ("SSE-SAM, stage 2", 3),
        ("SGD, per shard", 1),
        ("SAM, per shard", 1),
    ],
)
def test_gradients_that_a_method_reduces(name, gradients, table):
    """One for each backward pass that something waits for; with own perturbations one in all."""
    assert reduced_gradients(table[name]) == pytest.approx(gradients, abs=0.01)
    assert table[name]["gathered MB"] == "0"


@pytest.mark.soak
def test_the_closed_form_gathers_features_and_residuals(table):
    """And reduces one gradient and sums of a few numbers an image."""
    row = table["CC-SAM, classifier"]
    assert 1 < reduced_gradients(row) < 1.1
    # At least 4 images' features on each device, of 256 numbers with 4 bytes.
    assert float(row["gathered MB"]) * 1e6 > 4 * 4 * 256


@pytest.mark.soak
def test_the_table_follows_the_measured_step(table):
    assert table["SGD"]["ms on 1"] == "500"
    ratio = float(table["SAM"]["TFLOP"].split("(")[1].rstrip(")"))
    assert float(table["SAM"]["ms on 1"]) == pytest.approx(500 * ratio, rel=0.01)
    assert table["SGD"]["measured ratio"] == "1.00"
    assert float(table["SAM"]["measured ratio"]) > 0
    assert table["SAM, per shard"]["measured ratio"] == "-"


def test_mistakes_are_one_line(monkeypatch, capfd):
    for flags, message in [
        (["--devices", 12], "devices must fill nodes of 8 or be fewer, got 12"),
        (["--networks", "resnet33"], "got resnet33; the nearest is resnet"),
        (["--networks", "mlp", "mlp"], "networks must be different, got mlp mlp"),
        (["--methods", "cc_sam_all"], "methods must be without loops, got cc_sam_all"),
        (["--overlap", "2"], "overlap must be at most 1, got 2.0"),
    ]:
        status, _, lines = small_runs.run_program(monkeypatch, capfd, scaling, *flags)
        assert status == 2
        assert message in lines[0]
        assert len(lines) == 1


def test_help_needs_no_training_library():
    code = (
        "import contextlib, json, sys\n"
        "from experiments.scaling.__main__ import main\n"
        "sys.argv = ['scaling', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "heavy = {'flax', 'matplotlib', 'tensorflow', 'orbax'}\n"
        "print(json.dumps(sorted(loaded & heavy)))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "utilization" in finished.stdout
    assert json.loads(finished.stdout.splitlines()[-1]) == []
