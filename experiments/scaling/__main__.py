"""Efficiency to be expected of data-parallel training on many accelerators, by a model.

Arithmetic from XLA's count of each step's FLOPs, collectives counted in the step as XLA partitions
it over 8 devices, rings within a node and trees between nodes. Devices wait for every collective
but the last gradient's all-reduce, which runs beside part of the backward pass. Nothing is measured
on accelerators.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np

from experiments import command_line, parsing
from experiments.benchmark.cases import CASES, LABELS, CaseName, make_problem
from experiments.benchmark.timing import alternate, paired_ratio
from experiments.presentation import markdown_table
from experiments.scaling.interconnect import Machine, Work, step_time
from jaxlt import UsageError
from jaxlt.recipes.network import AnyNetwork, ImageNetResNet, Network, RandomEncoder
from jaxlt.recipes.part import Count, CountOrZero, Positive

_logger = logging.getLogger(__name__)


def _networks(words: Sequence[str]) -> tuple[Network, ...]:
    return tuple(parsing.chosen_part("networks", AnyNetwork, None, [word]) for word in words)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    networks: Annotated[tuple[Network, ...], _networks] = (
        ImageNetResNet(),
        RandomEncoder(size="vit_b16"),
    )
    """Networks, such as resnet50 and random:vit_b16."""
    methods: tuple[CaseName, ...] = CASES[1:-1]
    """Which beside SGD, with perturbations by the global batch. Not cc_sam_all, which has loops."""
    per_shard: tuple[CaseName, ...] = ("sgd", "sam")
    """Which besides with perturbations and batch norm by each device's own images."""
    device_batch: Count = 64
    """Images a device."""
    image_size: Count = 224
    """Side of the images in pixels."""
    num_classes: Count = 1000
    """Classes."""
    devices: tuple[Count, ...] = (8, 64, 512)
    """Numbers of accelerators."""
    step_seconds: Positive | None = None
    """Measured time of SGD's step on one accelerator, from which the others' follow by their FLOPs;
    none for FLOPs over peak and utilization."""
    measure: CountOrZero = 0
    """Images of a step that each method also takes on this machine's processor, for the ratio of
    its time to SGD's; 0 for none."""
    machine: Machine = dataclasses.field(default_factory=Machine)


def main() -> None:
    """Parses the flags, compiles each step for eight devices, and prints each network's table."""
    arguments: Arguments = command_line.parse(Arguments, "experiments.scaling", __doc__ or "")
    _check(arguments)
    # Before anything asks for a device.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_compilation_cache", False)
    for network in arguments.networks:
        print(f"\n{network.label}:\n\n{_table(network, arguments)}\n", flush=True)
    measure = () if arguments.measure else ("python3 -m experiments.scaling --measure 8",)
    command_line.say_next(
        *measure, "python3 -m experiments.input_throughput --source list:ROOT,TRAIN"
    )


def _check(arguments: Arguments) -> None:
    command_line.check_distinct("network", [one.label for one in arguments.networks])
    command_line.check_distinct("device", arguments.devices)
    for devices in arguments.devices:
        arguments.machine.levels(devices)
    if "cc_sam_all" in (*arguments.methods, *arguments.per_shard):
        raise UsageError("methods must be without loops, got cc_sam_all")
    if arguments.step_seconds == math.inf:
        raise UsageError("step_seconds must be positive and finite, got inf")


def _table(network: Network, arguments: Arguments) -> str:
    works, machine = _count(network, arguments), arguments.machine
    measured = _measure(network, arguments) if arguments.measure else {}
    sgd = works[LABELS["sgd"]]
    if arguments.step_seconds is not None:
        rate = sgd.flops / arguments.step_seconds
        machine = dataclasses.replace(machine, peak_flops=rate, utilization=1.0)
    headers = ["method", "TFLOP", "ms on 1", "all-reduces", "MB", "gathered MB"]
    headers += [f"on {devices}" for devices in arguments.devices]
    headers += ["bound", *(["measured ratio"] if measured else [])]
    rows = []
    for label, counted in works.items():
        # A backward pass has two products for each one of the forward pass.
        work = dataclasses.replace(counted, backward_flops=sgd.flops * 2 / 3)
        times = [step_time(work, devices, machine) for devices in arguments.devices]
        rows.append(
            [
                label,
                _with_ratio(work.flops / 1e12, sgd.flops / 1e12),
                f"{1e3 * times[0].compute:.3g}",
                str(work.traffic.all_reduces),
                _with_ratio(work.traffic.reduced_bytes / 1e6, work.gradient_bytes / 1e6),
                f"{work.traffic.gathered_bytes / 1e6:.3g}",
                *(f"{t.efficiency:.0%} ({t.interconnect_efficiency:.0%})" for t in times),
                times[-1].bound,
                *([measured.get(label, "-")] if measured else []),
            ]
        )
    return markdown_table(headers, rows)


def _with_ratio(value: float, unit: float) -> str:
    return f"{value:.4g} ({value / unit:.2f})"


def _count(network: Network, arguments: Arguments) -> dict[str, Work]:
    """Returns the steps by label: those of the global batch, then those per shard."""
    from experiments.scaling.partitioned_step import compile_partitioned

    chosen: dict[str, tuple[CaseName, bool]] = {
        LABELS[case]: (case, False) for case in ("sgd", *arguments.methods)
    }
    chosen |= {f"{LABELS[case]}, per shard": (case, True) for case in arguments.per_shard}
    works = {}
    for label, (case, own_perturbations) in chosen.items():
        works[label] = compile_partitioned(
            network,
            case,
            own_perturbations=own_perturbations,
            device_batch=arguments.device_batch,
            num_classes=arguments.num_classes,
            image_size=arguments.image_size,
        )
        _logger.info("%s, %s: compiled", network.label, label)
    return works


def _measure(network: Network, arguments: Arguments) -> dict[str, str]:
    """Returns the times of the same steps on one device of this machine, over SGD's, by label."""
    from experiments.benchmark.compiled_step import compile_step

    problem = make_problem(
        network,
        batch_size=arguments.measure,
        num_classes=arguments.num_classes,
        image_size=arguments.image_size,
    )
    cases = dict.fromkeys(("sgd", *arguments.methods))
    steps = {LABELS[case]: compile_step(problem, case, by_group=False) for case in cases}
    (seconds,) = alternate([steps], rounds=3)
    of_sgd = seconds[LABELS["sgd"]]
    median = np.median(of_sgd)
    rate = arguments.measure / median
    _logger.info(
        "%s: SGD takes %.0f ms a step here, %.2f images/s", network.label, 1e3 * median, rate
    )
    return {label: f"{paired_ratio(times, of_sgd):.2f}" for label, times in seconds.items()}


if __name__ == "__main__":
    command_line.run(main)
