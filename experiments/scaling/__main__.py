"""The program: `python -m experiments.scaling`."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

from experiments import command_line, flag_words
from experiments.benchmark.cases import CaseName
from experiments.scaling.interconnect import Machine, Work, step_time
from jaxlt import UsageError
from jaxlt.recipes.network import AnyNetwork, ImageNetResNet, Network, RandomEncoder

if TYPE_CHECKING:
    from experiments.benchmark.rounds import Step
    from experiments.scaling.partitioned_step import PartitionedStep

_logger = logging.getLogger(__name__)

_COUNTED_ON = 8


class Row(NamedTuple):
    """A method, and whether perturbations and batch norm are by each device's own images."""

    case: CaseName
    own_perturbations: bool = False


def _networks(words: Sequence[str]) -> tuple[Network, ...]:
    return tuple(flag_words.part_named("networks", AnyNetwork, word) for word in words)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    networks: Annotated[tuple[Network, ...], _networks] = (
        ImageNetResNet(),
        RandomEncoder(size="vit_b16"),
    )
    """Networks, such as resnet50 and random:vit_b16."""
    methods: tuple[CaseName, ...] = (
        "sam",
        "imb_sam",
        "focal_sam",
        "sse_sam_stage1",
        "sse_sam_stage2",
        "cc_sam",
    )
    """Which beside SGD, with perturbations by the global batch. Not cc_sam_all, which has loops."""
    per_shard: tuple[CaseName, ...] = ("sgd", "sam")
    """Which besides with perturbations and batch norm by each device's own images."""
    device_batch: int = 64
    """Images a device."""
    image_size: int = 224
    """Side of the images in pixels."""
    num_classes: int = 1000
    """Classes."""
    devices: tuple[int, ...] = (8, 64, 512)
    """Numbers of accelerators."""
    step_seconds: float | None = None
    """Measured time of SGD's step on one accelerator, from which the others' follow by their FLOPs.
    None for FLOPs over peak and utilisation."""
    measure: int = 0
    """Images of a step that each method also takes on this machine's processor, for the ratio of
    its time to SGD's; 0 for none."""
    machine: Machine = dataclasses.field(default_factory=Machine)


def main() -> None:
    """Parses the flags, compiles each step for eight devices, and prints each network's table."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.scaling",
        "Efficiency to be expected of data-parallel training on many accelerators, by a model: "
        "arithmetic from XLA's count of each step's FLOPs, collectives counted in the step as XLA "
        f"partitions it over {_COUNTED_ON} devices, rings within a node and trees between nodes. "
        "Devices wait for every collective but the last gradient's all-reduce, which runs beside "
        "part of the backward pass. Nothing is measured on accelerators.",
    )
    _check(arguments)
    import jax

    # Before anything asks for a device.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", _COUNTED_ON)
    jax.config.update("jax_enable_compilation_cache", False)
    for network in arguments.networks:
        print(f"\n{network.label}:\n\n{_table(network, arguments)}\n", flush=True)


def _check(arguments: Arguments) -> None:
    for name in ("device_batch", "image_size", "num_classes"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"{name} must be at least 1, got {getattr(arguments, name)}")
    command_line.check_distinct("network", [one.label for one in arguments.networks])
    command_line.check_distinct("device", arguments.devices)
    for devices in arguments.devices:
        if devices < 1:
            raise UsageError(f"devices must be at least 1, got {devices}")
        arguments.machine.nodes(devices)
    if "cc_sam_all" in (*arguments.methods, *arguments.per_shard):
        raise UsageError("methods must be without loops, got cc_sam_all")
    seconds = arguments.step_seconds
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"step_seconds must be positive, got {seconds}")
    if arguments.measure < 0:
        raise UsageError(f"measure must be at least 0, got {arguments.measure}")


def _table(network: Network, arguments: Arguments) -> str:
    from tabulate import tabulate

    steps = _compile(network, arguments)
    measured = _measure(network, arguments) if arguments.measure else {}
    sgd = steps[Row("sgd")]
    headers = ["method", "TFLOP", "ms on 1", "all-reduces", "MB", "gathered MB"]
    headers += [f"on {devices}" for devices in arguments.devices]
    headers += ["bound", *(["measured ratio"] if measured else [])]
    rows = []
    for row, step in steps.items():
        work = _work(step, sgd, arguments)
        times = [step_time(work, devices, arguments.machine) for devices in arguments.devices]
        rows.append(
            [
                _name(row),
                _with_ratio(step.flops / 1e12, sgd.flops / 1e12),
                f"{1e3 * work.compute_seconds:.3g}",
                str(step.traffic.all_reduces),
                _with_ratio(step.traffic.reduced_bytes / 1e6, step.gradient_bytes / 1e6),
                f"{step.traffic.gathered_bytes / 1e6:.3g}",
                *(f"{t.efficiency:.0%} ({t.interconnect_efficiency:.0%})" for t in times),
                times[-1].bound,
            ]
            + ([measured.get(row, "-")] if measured else [])
        )
    return tabulate(rows, headers, tablefmt="github", stralign="right", disable_numparse=True)


def _compile(network: Network, arguments: Arguments) -> "dict[Row, PartitionedStep]":
    from experiments.scaling.partitioned_step import compile_partitioned

    rows = dict.fromkeys(
        [Row("sgd")]
        + [Row(case) for case in arguments.methods]
        + [Row(case, own_perturbations=True) for case in arguments.per_shard]
    )
    steps = {}
    for row in rows:
        steps[row] = compile_partitioned(
            network,
            row.case,
            own_perturbations=row.own_perturbations,
            device_batch=arguments.device_batch,
            num_classes=arguments.num_classes,
            image_size=arguments.image_size,
        )
        _logger.info("%s, %s: compiled", network.label, _name(row))
    return steps


def _work(step: "PartitionedStep", sgd: "PartitionedStep", arguments: Arguments) -> Work:
    machine = arguments.machine
    of_sgd = arguments.step_seconds or sgd.flops / (machine.peak_flops * machine.utilisation)
    return Work(
        compute_seconds=of_sgd * step.flops / sgd.flops,
        # A backward pass has two products for each one of the forward pass.
        backward_seconds=of_sgd * 2 / 3,
        gradient_bytes=step.gradient_bytes,
        traffic=step.traffic,
        images=arguments.device_batch,
        image_bytes=4 * 3 * arguments.image_size**2,
    )


def _measure(network: Network, arguments: Arguments) -> dict[Row, str]:
    """Returns the times of the same steps on one device of this machine, over SGD's."""
    from experiments.benchmark.rounds import alternate, paired_ratio, spread
    from experiments.scaling.partitioned_step import step_of_one_device

    cases: tuple[CaseName, ...] = ("sgd", *arguments.methods)
    steps: dict[CaseName, Step] = {
        case: step_of_one_device(
            network,
            case,
            images=arguments.measure,
            num_classes=arguments.num_classes,
            image_size=arguments.image_size,
        )
        for case in dict.fromkeys(cases)
    }
    seconds: dict[CaseName, list[float]]
    (seconds,) = alternate([steps], rounds=3)
    median = spread(seconds["sgd"]).median
    rate = arguments.measure / median
    _logger.info(
        "%s: SGD takes %.0f ms a step here, %.2f images/s", network.label, 1e3 * median, rate
    )
    return {
        Row(case): f"{paired_ratio(times, seconds['sgd']):.2f}" for case, times in seconds.items()
    }


def _with_ratio(value: float, unit: float) -> str:
    return f"{value:.4g} ({value / unit:.2f})"


def _name(row: Row) -> str:
    from experiments.benchmark.report import NAMES

    return NAMES[row.case] + (", per shard" if row.own_perturbations else "")


if __name__ == "__main__":
    command_line.run(main)
