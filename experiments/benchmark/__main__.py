"""The program: `python -m experiments.benchmark`."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from experiments import command_line
from experiments.benchmark.cases import CASES, CaseName, Problem, make_problem
from jaxlt import UsageError
from jaxlt.recipes.network import AnyNetwork, Small

if TYPE_CHECKING:
    from experiments.benchmark.compiled_step import CompiledStep
    from experiments.benchmark.rounds import Step

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    network: AnyNetwork = dataclasses.field(default_factory=Small)
    """Network. Of remat, which XLA's compiler for CPUs merges back, --memory-only counts what other
    devices save."""
    batch_size: int = 64
    """Images a step."""
    num_classes: int = 100
    """Classes, of 500 training images down to 5."""
    image_size: int = 32
    """Side of the images in pixels."""
    methods: tuple[CaseName, ...] | None = None
    """Which to measure beside SGD. None for all, without cc_sam_all where batch norm makes it cost
    a pass over the batch for each class."""
    rounds: int = 15
    """Steps of each method; the methods take turns."""
    tail_share: float | None = None
    """Share of the batch in classes with fewer than 100 training images; None draws the labels
    from the training set's own distribution."""
    peer: Literal["none", "torch"] = "none"
    """torch: times PyTorch loops of the same steps in the same rounds. Its threads spin while
    they wait: where other programs use the cores too, set OMP_WAIT_POLICY=passive."""
    memory_only: bool = False
    """Compile each step for XLA's count of its memory and run none: what a batch takes that this
    machine could not."""
    workdir: Path = Path("runs/benchmark")
    """Directory of table.md, results.json and, of times, ratios.png, which are replaced."""


def main() -> None:
    """Parses the flags, measures, and prints and saves the results."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.benchmark",
        "Measures one training step of each method on generated images: FLOPs and bytes of the "
        "path taken, peak memory, compile time and step time, and each as a ratio to SGD's. "
        "Ratios of times are medians over rounds of the ratio within a round.",
    )
    _check(arguments)
    problem = make_problem(
        arguments.network,
        batch_size=arguments.batch_size,
        num_classes=arguments.num_classes,
        image_size=arguments.image_size,
        tail_share=arguments.tail_share,
    )
    chosen = _choose(arguments, problem)
    peers = _torch_steps(problem, chosen) if arguments.peer == "torch" else {}

    from jaxlt.files.json_files import claim_directory

    claim_directory(arguments.workdir)
    if arguments.memory_only:
        _count_memory(arguments, problem, chosen)
    else:
        _measure(arguments, problem, chosen, peers)


def _check(arguments: Arguments) -> None:
    if arguments.rounds < 1:
        raise UsageError(f"rounds must be at least 1, got {arguments.rounds}")
    if arguments.methods is not None and len(set(arguments.methods)) < len(arguments.methods):
        raise UsageError(f"methods must be different, got {' '.join(arguments.methods)}")

    if arguments.memory_only and arguments.peer != "none":
        raise UsageError(f"peer must be none with memory_only, got {arguments.peer}")


def _choose(arguments: Arguments, problem: Problem) -> tuple[CaseName, ...]:
    """Returns the cases in their order of the table, SGD always among them."""
    from jaxlt.recipes.step import check_micro_batch

    model = problem.network.build(len(problem.class_counts), problem.image_shape)
    check_micro_batch(problem.network, model)
    if arguments.methods is not None:
        return tuple(case for case in CASES if case in ("sgd", *arguments.methods))
    if not model.couples_examples:
        return CASES
    _logger.info(
        "cc_sam_all is left out: with batch norm it costs a pass for each class of the batch; "
        "--methods cc_sam_all measures it all the same"
    )
    return tuple(case for case in CASES if case != "cc_sam_all")


def _torch_steps(problem: Problem, cases: tuple[CaseName, ...]) -> dict[CaseName, "Step"]:
    try:
        from experiments.benchmark.torch_steps import build_steps
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(
            "peer torch must be installed, got none: pip install -e '.[peer]'"
        ) from None
    return build_steps(problem, cases)


def _count_memory(arguments: Arguments, problem: Problem, cases: tuple[CaseName, ...]) -> None:
    import jax

    from experiments.benchmark.compiled_step import step_memory
    from experiments.benchmark.machine import describe_machine
    from experiments.benchmark.report import format_memory
    from jaxlt.files.json_files import write_json

    jax.config.update("jax_enable_compilation_cache", False)
    counted = {}
    for case in cases:
        counted[case], seconds = step_memory(problem, case)
        _logger.info("%s: %d MiB, in %.1f s", case, counted[case].peak / 2**20, seconds)
    table = format_memory(counted)
    (arguments.workdir / "table.md").write_text(table + "\n")
    results = {
        "machine": describe_machine(),
        "settings": msgspec.to_builtins(arguments, enc_hook=str),
        "memory": {case: memory._asdict() for case, memory in counted.items()},
    }
    write_json(arguments.workdir / "results.json", results)
    print(f"\n{table}\n")


def _measure(
    arguments: Arguments,
    problem: Problem,
    cases: tuple[CaseName, ...],
    peers: dict[CaseName, "Step"],
) -> None:
    import jax

    from experiments.benchmark.machine import describe_machine
    from experiments.benchmark.report import Measurement, draw, format_table
    from experiments.benchmark.rounds import alternate
    from jaxlt.files.json_files import write_json

    # A program from the persistent cache would show a compile time of nothing.
    jax.config.update("jax_enable_compilation_cache", False)
    machine = describe_machine()
    _logger.info("%(cpu)s, %(cores)d cores, device %(device)s, jax %(jax)s", machine)
    steps: dict[CaseName, CompiledStep] = {case: _compile(problem, case) for case in cases}
    seconds, torch_seconds = alternate([steps, peers], arguments.rounds)
    measurements: dict[CaseName, Measurement] = {
        case: Measurement(
            flops=step.cost.flops,
            bytes=step.cost.bytes,
            peak_memory=step.peak_memory,
            trace_seconds=step.trace_seconds,
            compile_seconds=step.compile_seconds,
            seconds=seconds[case],
            torch_seconds=torch_seconds.get(case),
        )
        for case, step in steps.items()
    }
    table = format_table(measurements)
    (arguments.workdir / "table.md").write_text(table + "\n")
    results = {
        "machine": machine,
        "settings": msgspec.to_builtins(arguments, enc_hook=str),
        "labels": problem.labels.tolist(),
        "cases": {case: dataclasses.asdict(measured) for case, measured in measurements.items()},
    }
    write_json(arguments.workdir / "results.json", results)
    title = (
        f"{problem.network.label}, batch {len(problem.labels)}, {problem.count_tail()} of them tail"
    )
    draw(measurements, title, arguments.workdir / "ratios.png")
    print(f"\n{table}\n")
    _logger.info("table, results and picture are in %s", arguments.workdir)


def _compile(problem: Problem, case: CaseName) -> "CompiledStep":
    from experiments.benchmark.compiled_step import compile_step

    step = compile_step(problem, case)
    _logger.info(
        "%s: %.4g GFLOP, compiled in %.1f s",
        case,
        step.cost.flops / 1e9,
        step.trace_seconds + step.compile_seconds,
    )
    return step


if __name__ == "__main__":
    command_line.run(main)
