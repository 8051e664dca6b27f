"""Measures one training step of each method on generated images, and its ratios to SGD's.

FLOPs and bytes of the path taken, peak memory, compile time and step time. Ratios of times are
medians over rounds of the ratio within a round.
"""

import dataclasses
import importlib.util
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from experiments import command_line
from experiments.benchmark.cases import CASES, CaseName, Problem, has_ascent_share, make_problem
from experiments.benchmark.timing import TimedStep, alternate, prepare_machine
from jaxlt import UsageError
from jaxlt.files.directory import claim_directory, write_json
from jaxlt.recipes.methods.method import BatchShare
from jaxlt.recipes.network import AnyNetwork, Small
from jaxlt.recipes.part import Count, Share

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    network: AnyNetwork = dataclasses.field(default_factory=Small)
    """Network."""
    batch_size: Count = 64
    """Images a step."""
    num_classes: Count = 100
    """Classes, of 500 training images down to 5."""
    image_size: Count = 32
    """Side of the images in pixels."""
    methods: tuple[CaseName, ...] | None = None
    """Which to measure beside SGD; none for all, without cc_sam_all where batch norm makes it cost
    a pass over the batch for each class."""
    rounds: Count = 15
    """Steps of each method; the methods take turns."""
    every: Count = 1
    """Steps per whole gradient of each method (jaxlt.every); times are of a step in the mean."""
    ascent_share: BatchShare = 1.0
    """Share of the batch that decides perturbations, of the methods that have the option."""
    tail_share: Share | None = None
    """Share of the batch in classes with fewer than 100 training images; none draws the labels
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
    arguments: Arguments = command_line.parse(Arguments, "experiments.benchmark", __doc__ or "")
    if arguments.methods:
        command_line.check_distinct("method", arguments.methods)
    if arguments.memory_only and arguments.peer != "none":
        raise UsageError(f"peer must be none with memory_only, got {arguments.peer}")
    if (arguments.every, arguments.ascent_share) != (1, 1) and arguments.peer != "none":
        raise UsageError(f"peer must be none with every or ascent_share, got {arguments.peer}")
    if arguments.peer == "torch" and importlib.util.find_spec("torch") is None:
        raise UsageError(
            "peer torch must be installed, got none: python3 -m pip install -e '.[peer]'"
        )
    problem = make_problem(
        arguments.network,
        batch_size=arguments.batch_size,
        num_classes=arguments.num_classes,
        image_size=arguments.image_size,
        tail_share=arguments.tail_share,
    )
    problem = dataclasses.replace(
        problem, every=arguments.every, ascent_share=arguments.ascent_share
    )
    cases = _choose(arguments, problem)
    peers: Mapping[CaseName, TimedStep] = {}
    if arguments.peer == "torch":
        from experiments.benchmark.torch_steps import build_steps

        peers = build_steps(problem, cases)
    workdir = arguments.workdir
    claim_directory(workdir)
    machine = prepare_machine()
    if arguments.memory_only:
        table, results = _count_memory(problem, cases)
    else:
        table, results = _measure(arguments, problem, cases, peers)
    (workdir / "table.md").write_text(table + "\n")
    settings = msgspec.to_builtins(arguments, enc_hook=str)
    write_json(workdir / "results.json", {"machine": machine, "settings": settings, **results})
    print(f"\n{table}\n")
    _logger.info("table, results and, of times, the picture are in %s", workdir)
    command_line.say_next("python3 -m experiments.wall_time", "python3 -m experiments.scaling")


def _choose(arguments: Arguments, problem: Problem) -> tuple[CaseName, ...]:
    """Returns the cases in their order of the table, SGD always among them."""
    from jaxlt.recipes.built_stage import check_micro_batch

    model = problem.network.build(len(problem.class_counts), problem.image_shape)
    check_micro_batch(problem.network, model)
    if arguments.methods is not None:
        return tuple(case for case in CASES if case in ("sgd", *arguments.methods))
    if arguments.ascent_share < 1:
        return tuple(case for case in CASES if case == "sgd" or has_ascent_share(case))
    if not model.couples_examples:
        return CASES
    _logger.info(
        "cc_sam_all is left out: with batch norm it costs a pass for each class of the batch; "
        "--methods cc_sam_all measures it all the same"
    )
    return CASES[:-1]


def _count_memory(problem: Problem, cases: Sequence[CaseName]) -> tuple[str, dict[str, Any]]:
    from experiments.benchmark.compiled_step import step_memory
    from experiments.benchmark.report import format_memory

    memory = {}
    for case in cases:
        began = time.perf_counter()
        memory[case] = step_memory(problem, case)
        seconds = time.perf_counter() - began
        _logger.info("%s: %d MiB, in %.1f s", case, memory[case].peak / 2**20, seconds)
    return format_memory(memory), {"memory": {case: memory[case]._asdict() for case in cases}}


def _measure(
    arguments: Arguments,
    problem: Problem,
    cases: Sequence[CaseName],
    peers: Mapping[CaseName, TimedStep],
) -> tuple[str, dict[str, Any]]:
    from experiments.benchmark.compiled_step import compile_step
    from experiments.benchmark.report import draw, format_costs

    steps = {}
    for case in cases:
        steps[case] = compile_step(problem, case)
        cost = steps[case].cost
        seconds = cost.trace_seconds + cost.compile_seconds
        _logger.info("%s: %.4g GFLOP, compiled in %.1f s", case, cost.flops / 1e9, seconds)
    own, torchs = alternate([steps, peers], arguments.rounds)
    costs = {
        case: dataclasses.replace(
            step.cost, seconds=step.of_one(own[case]), torch_seconds=torchs.get(case)
        )
        for case, step in steps.items()
    }
    num_tail = problem.count_tail()
    title = f"{problem.network.label}, batch {arguments.batch_size}, {num_tail} of them tail"
    draw(costs, title, arguments.workdir / "ratios.png")
    labels = problem.labels.tolist()
    by_case = {case: dataclasses.asdict(cost) for case, cost in costs.items()}
    return format_costs(costs), {"labels": labels, "cases": by_case}


if __name__ == "__main__":
    command_line.run(main)
