"""Wall time of whole training runs on generated images: `python -m experiments.wall_time`.

Trains on 10,847 generated images of CIFAR-100-LT's shape and class counts, which stay on the
device, and prints the wall time of the steps beside a floor: their FLOPs at the rate at which the
device multiplies large matrices in the same precision.
"""

import dataclasses
import logging
import sys
import time

import jax
import numpy as np
from tqdm import tqdm

from experiments import command_line
from experiments.benchmark.cases import CaseName, Problem, long_tailed_counts
from experiments.benchmark.path_cost import path_cost
from experiments.benchmark.timing import alternate, prepare_machine
from experiments.presentation import markdown_table
from jaxlt.data import (
    ArrayImages,
    DevicePipeline,
    DrawStream,
    ImageAugmentation,
    InstanceBalancedSampler,
)
from jaxlt.recipes.network import AnyNetwork, Small
from jaxlt.recipes.part import Count

_logger = logging.getLogger(__name__)

_IMAGE_SHAPE = (32, 32, 3)
_CLASS_COUNTS = long_tailed_counts(100)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    steps: Count = 34000
    """Steps of each run; the default is 200 epochs of CIFAR-100-LT in batches of 64."""
    batch_size: Count = 64
    """Images a step."""
    methods: tuple[CaseName, ...] = ("sgd", "focal_sam", "cc_sam")
    """Which to run, one after the other."""
    num_seeds: Count = 1
    """Seeds that train together in one program."""
    network: AnyNetwork = dataclasses.field(default_factory=Small)
    """Network."""


@dataclasses.dataclass(frozen=True)
class RunTime:
    """Wall time of a run's steps and their data, of compiling, and FLOPs of a step of all seeds."""

    seconds: float
    compile_seconds: float
    flops: float


def main() -> None:
    """Parses the flags, trains, and prints the table."""
    arguments: Arguments = command_line.parse(
        Arguments, "experiments.wall_time", (__doc__ or "").partition("\n")[2]
    )
    command_line.check_distinct("method", arguments.methods)
    prepare_machine()
    pipelines = generated_pipelines(arguments.num_seeds, arguments.batch_size)
    times: dict[CaseName, RunTime] = {
        method: run(arguments, method, pipelines) for method in arguments.methods
    }
    precision = arguments.network.precision
    rate = matmul_rate(precision)
    _logger.info("matrix products in %s: %.4g GFLOP/s", precision, rate / 1e9)
    print(f"\n{format_times(arguments, times, rate)}\n")
    command_line.say_next(
        f"python3 -m experiments.benchmark --methods {' '.join(arguments.methods)} "
        f"--batch-size {arguments.batch_size}"
    )


def generated_pipelines(num_seeds: int, batch_size: int) -> list[DevicePipeline]:
    """Makes noise of CIFAR-100-LT's shape and class counts, shared by a pipeline for each seed."""
    labels = np.repeat(np.arange(len(_CLASS_COUNTS)), _CLASS_COUNTS)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *_IMAGE_SHAPE), np.uint8)
    numbers, crops = np.arange(len(labels)), ImageAugmentation("crop_flip")
    streams = [
        DrawStream(numbers, InstanceBalancedSampler(len(labels), seed), batch_size, seed, crops)
        for seed in range(num_seeds)
    ]
    images = ArrayImages(pixels, labels)
    first = DevicePipeline(images, streams[0], mean=(0.5,) * 3, std=(0.25,) * 3)
    return [first, *(first.with_stream(stream) for stream in streams[1:])]


def run(arguments: Arguments, method: CaseName, pipelines: list[DevicePipeline]) -> RunTime:
    """Trains one method for all steps, the seeds under one `vmap`."""
    from experiments.benchmark.compiled_step import Training
    from jaxlt.training.loop.program import Program, steps_per_chunk
    from jaxlt.training.step.ensemble import EnsemblePipeline, stack

    first, members = pipelines[0], len(pipelines)
    chunk = next(first.chunks(0, 1, 1))
    images = jax.ShapeDtypeStruct((arguments.batch_size, *_IMAGE_SHAPE), "float32")
    problem = Problem(arguments.network, _CLASS_COUNTS, images, chunk.labels[0])
    training = Training(problem, problem.stage(method))
    payload = jax.tree.map(lambda leaf: leaf[0], chunk.payload)
    states = [training.initialize(seed) for seed in range(members)]
    batch = first.read(first.resident, payload)
    flops = members * path_cost(training.step, states[0], *batch).flops
    alone = members == 1
    pipeline = first if alone else EnsemblePipeline(pipelines)
    sent = members * sum(leaf.nbytes for leaf in jax.tree.leaves(payload))
    program = Program(
        pipeline,
        lambda form: training.step_at(form) if alone else jax.vmap(training.step_at(form)),
        training.forms.choose,
        boundaries=training.forms.boundaries,
        chunk_steps=steps_per_chunk(sent),
    )
    state, losses = program.place(states[0] if alone else stack(states)), None
    began, done, steps = time.perf_counter(), 0, arguments.steps
    with tqdm(total=steps, desc=method, unit="step", disable=not sys.stderr.isatty()) as bar:
        for start, stop, size in program.cut(0, steps):
            for chunk in pipeline.chunks(start, stop, size):
                previous = losses
                state, losses = program(state, done, chunk)
                done += len(losses)
                # As the training loop does, so that the host runs no more than a chunk ahead.
                jax.block_until_ready(previous)
                bar.update(len(losses))
    jax.block_until_ready((state, losses))
    compiling = program.compile_seconds
    seconds = time.perf_counter() - began - compiling
    _logger.info("%s: %d steps in %.1f s, compiled in %.1f s", method, steps, seconds, compiling)
    return RunTime(seconds, compiling, flops)


def matmul_rate(precision: str) -> float:
    """Returns the FLOPs a second of a large matrix product on the default device."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.numpy.ones((side, side), precision)
    product = jax.jit(lambda a: a @ a)
    (seconds,) = alternate([{"product": lambda: product(matrix).block_until_ready()}], rounds=5)
    return 2 * side**3 / min(seconds["product"])


def format_times(arguments: Arguments, times: dict[CaseName, RunTime], rate: float) -> str:
    """Renders one row a method, as Markdown, for a device capable of `rate` FLOPs a second."""
    headers = ["method", "wall s", "images/s", "ms/step", "compile s", "GFLOP/step", "floor s"]
    images = arguments.steps * arguments.batch_size * arguments.num_seeds
    rows = []
    for method, took in times.items():
        floor = arguments.steps * took.flops / rate
        rows.append(
            [
                method,
                f"{took.seconds:.1f}",
                f"{images / took.seconds:.0f}",
                f"{1e3 * took.seconds / arguments.steps:.3f}",
                f"{took.compile_seconds:.1f}",
                f"{took.flops / 1e9:.3f}",
                f"{floor:.1f} (wall {took.seconds / floor:.1f} times that)",
            ]
        )
    return markdown_table(headers, rows)


if __name__ == "__main__":
    command_line.run(main)
