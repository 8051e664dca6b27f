"""Wall time of whole training runs on generated images: `python -m experiments.wall_time`."""

import dataclasses
import logging
import sys
import time
from typing import TYPE_CHECKING

from experiments import command_line
from experiments.benchmark.cases import CaseName, case_stage, long_tailed_counts
from jaxlt import UsageError
from jaxlt.recipes.network import AnyNetwork, Small

if TYPE_CHECKING:
    from jaxlt.data import DevicePipeline, Pipeline
    from jaxlt.training import TrainState
    from jaxlt.training.loop.program import Program

_logger = logging.getLogger(__name__)

_IMAGE_SHAPE = (32, 32, 3)
_NUM_CLASSES = 100
_RATE_TRIALS = 5


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    steps: int = 34000
    """Steps of each run; the default is 200 epochs of CIFAR-100-LT in batches of 64."""
    batch_size: int = 64
    """Images a step."""
    methods: tuple[CaseName, ...] = ("sgd", "focal_sam", "cc_sam")
    """Which to run, one after the other."""
    num_seeds: int = 1
    """Seeds that train together in one program."""
    network: AnyNetwork = dataclasses.field(default_factory=Small)
    """Network."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one run took.

    Attributes:
        seconds: wall time of the steps, data included, without compilation.
        compile_seconds: of the programs that the steps needed.
        flops: of one step of all seeds.
    """

    seconds: float
    compile_seconds: float
    flops: float


def main() -> None:
    """Parses the flags, trains, and prints the table."""
    arguments: Arguments = command_line.parse(
        Arguments,
        "experiments.wall_time",
        "Trains on 10,847 generated images of CIFAR-100-LT's shape and class counts, which stay "
        "on the device, and prints the wall time of the steps beside a floor: their FLOPs at the "
        "rate at which the device multiplies large matrices in the same precision.",
    )
    for name in ("steps", "batch_size", "num_seeds"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"{name} must be at least 1, got {getattr(arguments, name)}")
    command_line.check_distinct("method", arguments.methods)

    import jax

    from experiments.benchmark.machine import describe_machine

    # A program from the persistent cache would show a compile time of nothing.
    jax.config.update("jax_enable_compilation_cache", False)
    _logger.info("%(cpu)s, %(cores)d cores, device %(device)s, jax %(jax)s", describe_machine())
    pipelines = generated_pipelines(arguments.num_seeds, arguments.batch_size)
    timings: dict[CaseName, Timing] = {
        method: run(arguments, method, pipelines) for method in arguments.methods
    }
    precision = arguments.network.precision
    rate = matmul_rate(precision)
    _logger.info("matrix products in %s: %.4g GFLOP/s", precision, rate / 1e9)
    print(f"\n{format_table(arguments, timings, rate)}\n")


def generated_pipelines(num_seeds: int, batch_size: int) -> list["DevicePipeline"]:
    """Makes noise of CIFAR-100-LT's shape and class counts, shared by a pipeline for each seed."""
    import numpy as np

    from jaxlt.data import Augmentation, DevicePipeline, DrawStream, InstanceBalanced
    from jaxlt.data.sources.image_set import ArrayImages

    labels = np.repeat(np.arange(_NUM_CLASSES), long_tailed_counts(_NUM_CLASSES))
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *_IMAGE_SHAPE), np.uint8)
    streams = [
        DrawStream(
            np.arange(len(labels)),
            InstanceBalanced(len(labels), seed),
            batch_size,
            seed,
            Augmentation("crop_flip"),
        )
        for seed in range(num_seeds)
    ]
    first = DevicePipeline(
        ArrayImages(pixels, labels), streams[0], mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    return [first, *(first.with_stream(stream) for stream in streams[1:])]


def run(arguments: Arguments, method: CaseName, pipelines: list["DevicePipeline"]) -> Timing:
    """Trains one method for all steps, the seeds under one `vmap`."""
    import jax

    from experiments.benchmark.compiled_step import build_training
    from experiments.benchmark.path_cost import path_cost
    from jaxlt.training.loop.program import Program, steps_per_chunk
    from jaxlt.training.step.ensemble import EnsemblePipeline, stack

    stage, counts = case_stage(method, arguments.batch_size), long_tailed_counts(_NUM_CLASSES)
    training = build_training(arguments.network, stage, counts, _IMAGE_SHAPE)
    chunk = next(pipelines[0].chunks(0, 1, 1))
    payload = jax.tree.map(lambda leaf: leaf[0], chunk.payload)
    batch = pipelines[0].read(pipelines[0].resident, payload)
    states = [training.initialise(seed) for seed in range(len(pipelines))]
    step = training.step_at(training.forms.choose(0, chunk.labels))
    flops = len(pipelines) * path_cost(step, states[0], *batch).flops
    alone = len(pipelines) == 1
    sent = len(pipelines) * sum(leaf.nbytes for leaf in jax.tree.leaves(payload))
    pipeline = pipelines[0] if alone else EnsemblePipeline(pipelines)
    program = Program(
        pipeline,
        lambda form: training.step_at(form) if alone else jax.vmap(training.step_at(form)),
        training.forms.choose,
        boundaries=training.forms.boundaries,
        chunk_steps=steps_per_chunk(sent),
    )
    state = states[0] if alone else stack(states)
    seconds = _seconds_of_steps(program, pipeline, state, arguments.steps, label=method)
    _logger.info(
        "%s: %d steps in %.1f s, compiled in %.1f s",
        method,
        arguments.steps,
        seconds,
        program.compile_seconds,
    )
    return Timing(seconds, program.compile_seconds, flops)


def _seconds_of_steps(
    program: "Program", pipeline: "Pipeline", state: "TrainState", steps: int, *, label: str
) -> float:
    import jax
    from tqdm import tqdm

    state, losses = program.place(state), None
    began, step = time.perf_counter(), 0
    with tqdm(total=steps, desc=label, unit="step", disable=not sys.stderr.isatty()) as bar:
        for start, stop, size in program.cut(0, steps):
            for chunk in pipeline.chunks(start, stop, size):
                previous = losses
                state, losses = program(state, step, chunk)
                step += len(losses)
                # As the training loop does, so that the host runs no more than a chunk ahead.
                jax.block_until_ready(previous)
                bar.update(len(losses))
    jax.block_until_ready((state, losses))
    return time.perf_counter() - began - program.compile_seconds


def matmul_rate(precision: str) -> float:
    """Returns the FLOPs a second of a large matrix product on the default device."""
    import jax

    side = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.numpy.ones((side, side), precision)
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    seconds = []
    for _ in range(_RATE_TRIALS):
        began = time.perf_counter()
        product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def format_table(arguments: Arguments, timings: dict[CaseName, Timing], rate: float) -> str:
    """Renders one row a method, as Markdown.

    Args:
        arguments: of the program.
        timings: by method.
        rate: FLOPs a second that the device is capable of.
    """
    from tabulate import tabulate

    headers = ["method", "wall s", "images/s", "ms/step", "compile s", "GFLOP/step", "floor s"]
    images = arguments.steps * arguments.batch_size * arguments.num_seeds
    rows = []
    for method, timing in timings.items():
        floor = arguments.steps * timing.flops / rate
        rows.append(
            [
                method,
                f"{timing.seconds:.1f}",
                f"{images / timing.seconds:.0f}",
                f"{1e3 * timing.seconds / arguments.steps:.3f}",
                f"{timing.compile_seconds:.1f}",
                f"{timing.flops / 1e9:.3f}",
                f"{floor:.1f} (wall {timing.seconds / floor:.1f} times that)",
            ]
        )
    return tabulate(rows, headers, tablefmt="github", stralign="right", disable_numparse=True)


if __name__ == "__main__":
    command_line.run(main)
