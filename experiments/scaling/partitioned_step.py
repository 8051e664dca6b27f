"""A method's training step as XLA partitions it over devices: its FLOPs and its collectives."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.cases import CaseName, Problem, long_tailed_counts
from experiments.benchmark.compiled_step import Training
from experiments.benchmark.path_cost import analyzed_cost, compile_quickly
from experiments.scaling.interconnect import Traffic, Work
from jaxlt.devices.sharding import batch_sharding, data_mesh, replicated
from jaxlt.recipes.network import Network

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")


def compile_partitioned(
    network: Network,
    case: CaseName,
    *,
    own_perturbations: bool,
    device_batch: int,
    num_classes: int,
    image_size: int,
) -> Work:
    """Counts a case's step, compiled for all devices there are in bfloat16 and not run.

    Groups' passes take the whole batch, even where no batch norm couples the images: passes over a
    group's own images would gather those of all devices. `own_perturbations` has perturbations and
    batch norm by each device's own images, as `perturbation_shards` does.
    """
    mesh, shape = data_mesh(), (image_size, image_size, 3)
    images = jax.ShapeDtypeStruct((device_batch * mesh.size, *shape), jnp.float32)
    # Without passes by group the step does not depend on the labels.
    labels = np.zeros(len(images), np.int32)
    network, class_counts = network.replace(precision="bfloat16"), long_tailed_counts(num_classes)
    problem = Problem(network, class_counts, images, labels)
    stage = problem.stage(case)
    if own_perturbations:
        stage = stage.replace(perturbation_shards=mesh.size)
    training = Training(problem, stage, by_group=False)
    state = jax.eval_shape(lambda: training.initialize(0))
    whole, spread = replicated(mesh), batch_sharding(mesh, axis=0)
    jitted = jax.jit(training.step, in_shardings=(whole, spread, spread), out_shardings=whole)
    compiled = compile_quickly(jitted.lower(state, images, labels))
    text = compiled.as_text()
    assert text is not None, "the CPU's compiler always has one"
    gradient_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    return Work(
        flops=analyzed_cost(compiled).flops,
        gradient_bytes=gradient_bytes,
        traffic=count_collectives(text, mesh.size),
        images=device_batch,
        image_bytes=4 * math.prod(shape),
    )


def count_collectives(program: str, devices: int) -> Traffic:
    """Counts the all-reduces and all-gathers over all devices in the HLO text of one of them."""
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
