"""A method's training step as XLA partitions it over devices: its FLOPs and its collectives."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.cases import CaseName, case_stage, long_tailed_counts
from experiments.benchmark.compiled_step import build_training
from experiments.benchmark.rounds import Step
from experiments.scaling.interconnect import Traffic
from jaxlt.devices.sharding import batch_sharding, data_mesh, replicated
from jaxlt.recipes.network import Network
from jaxlt.recipes.stage import Stage
from jaxlt.training.step.train_step import TrainStep

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class PartitionedStep:
    """What XLA's analysis says of a compiled step.

    Attributes:
        flops: floating-point operations of one device.
        gradient_bytes: of one gradient of all trained parameters.
        traffic: its collectives.
    """

    flops: float
    gradient_bytes: int
    traffic: Traffic


def compile_partitioned(
    network: Network,
    case: CaseName,
    *,
    own_perturbations: bool = False,
    device_batch: int,
    num_classes: int,
    image_size: int,
) -> PartitionedStep:
    """Compiles a case's step for all devices there are, without running it.

    Groups' passes take the whole batch, as `imb_sam` and `sse_sam` do where images do not depend
    on each other too: passes over a group's own images would gather the images of all devices.

    Args:
        network: the network.
        case: which.
        own_perturbations: perturbations and batch norm by each device's own images, as with
            `perturbation_shards`; else by the global batch.
        device_batch: images a device.
        num_classes: C.
        image_size: side of the images in pixels.

    Raises:
        UsageError: the images do not fit the network.
        ValueError: the program has loops or collectives that the count does not know.
    """
    mesh = data_mesh()
    batch_size = device_batch * mesh.size
    stage = case_stage(case, batch_size)
    if own_perturbations:
        stage = stage.replace(perturbation_shards=mesh.size)
    shape = (image_size, image_size, 3)
    initialise, step = _build(network.replace(precision="bfloat16"), stage, num_classes, shape)
    state = jax.eval_shape(lambda: initialise(0))
    batch = (
        jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    whole, spread = replicated(mesh), batch_sharding(mesh, axis=0)
    jitted = jax.jit(step, in_shardings=(whole, spread, spread), out_shardings=whole)
    # For the analysis alone: the same operations in slower machine code.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    compiled = jitted.lower(state, *batch).compile(options)
    analysis: Any = compiled.cost_analysis()
    text = compiled.as_text()
    assert text is not None, "the CPU's compiler always has one"
    gradient_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    return PartitionedStep(analysis["flops"], gradient_bytes, count_collectives(text, mesh.size))


def step_of_one_device(
    network: Network, case: CaseName, *, images: int, num_classes: int, image_size: int
) -> Step:
    """Compiles the same step for one device, in float32, to be run on a batch of noise.

    Arguments and errors as of `compile_partitioned`, with the images of the batch.
    """
    shape = (image_size, image_size, 3)
    initialise, step = _build(network, case_stage(case, images), num_classes, shape)
    rng = np.random.default_rng(0)
    batch = (
        rng.standard_normal((images, *shape), dtype=np.float32),
        rng.integers(num_classes, size=images, dtype=np.int32),
    )
    compiled = jax.jit(step, donate_argnums=0).lower(initialise(0), *batch).compile()
    state = initialise(0)

    def run() -> None:
        nonlocal state
        state, loss = compiled(state, *batch)
        jax.block_until_ready((state, loss))

    return run


def _build(
    network: Network, stage: Stage, num_classes: int, shape: tuple[int, int, int]
) -> tuple[Any, TrainStep]:
    counts = long_tailed_counts(num_classes)
    training = build_training(network, stage, counts, shape, passes_by_group=False)
    # Without passes by group the form does not depend on the labels.
    form = training.forms.choose(0, np.zeros((1, stage.batch_size), np.int32))
    return training.initialise, training.step_at(form)


def count_collectives(program: str, devices: int) -> Traffic:
    """Counts the all-reduces and all-gathers of a partitioned program.

    Args:
        program: HLO text of one device's part.
        devices: over how many it is partitioned; each collective is over all of them.

    Raises:
        ValueError: it has loops, whose trips the text does not say, or other collectives.
    """
    if " while(" in program:
        raise ValueError("the program has a loop: how often its collectives run is not known")
    sizes: dict[str, list[int]] = {"all-reduce": [], "all-gather": []}
    for result, kind in _COLLECTIVE.findall(program):
        if kind not in sizes:
            raise ValueError(f"collectives must be all-reduces and all-gathers, got {kind}")
        sizes[kind].append(_bytes(result))
    reduced, gathered = sizes["all-reduce"], sizes["all-gather"]
    return Traffic(len(reduced), sum(reduced), len(gathered), sum(gathered) // devices)


def _bytes(result: str) -> int:
    """Returns the bytes of a result's arrays, such as `(f32[8,3]{1,0}, pred[])`."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * int(bits or 8) // 8
        for _, bits, sides in _ARRAY.findall(result)
    )
