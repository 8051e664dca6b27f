"""A method's training step as XLA partitions it over devices: its FLOPs and its collectives."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import jaxlt
from experiments.benchmark.cases import CaseName, case_recipe, long_tailed_counts
from experiments.benchmark.rounds import Step
from experiments.build import build_loss, build_model, build_optimizer, build_regime
from experiments.methods import build_method
from experiments.recipe import Recipe
from experiments.scaling.interconnect import Traffic
from jaxlt.devices.sharding import data_mesh, replicated
from jaxlt.training import TrainState, make_state_fn, make_train_step
from jaxlt.training.step.train_step import TrainStep

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")
_AXIS = "data"


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
    model: str,
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
        model: name of the network.
        case: which.
        own_perturbations: under `shard_map` with `jaxlt.per_shard`, batch norm by each device's own
            images; else under `jit`, with perturbations and batch norm by the global batch.
        device_batch: images a device.
        num_classes: C.
        image_size: side of the images in pixels.

    Raises:
        UsageError: there is no such network, or the images do not fit it.
        ValueError: the program has loops or collectives that the count does not know.
    """
    mesh = data_mesh()
    batch_size = device_batch * mesh.size
    recipe = case_recipe(case, model, batch_size, precision="bfloat16")
    shape = (image_size, image_size, 3)
    initialise, step = _build(
        recipe, case, long_tailed_counts(num_classes), shape, own_perturbations
    )
    state = jax.eval_shape(lambda: initialise(0))
    batch = (
        jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    spread = jax.sharding.NamedSharding(mesh, PartitionSpec(_AXIS))
    if own_perturbations:
        specs = PartitionSpec(), PartitionSpec(_AXIS), PartitionSpec(_AXIS)
        step = jax.shard_map(
            step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
    whole = replicated(mesh)
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
    model: str, case: CaseName, *, images: int, num_classes: int, image_size: int
) -> Step:
    """Compiles the same step for one device, in float32, to be run on a batch of noise.

    Arguments and errors as of `compile_partitioned`, with the images of the batch.
    """
    recipe = case_recipe(case, model, images)
    shape = (image_size, image_size, 3)
    initialise, step = _build(recipe, case, long_tailed_counts(num_classes), shape, False)
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
    recipe: Recipe,
    case: CaseName,
    class_counts: tuple[int, ...],
    shape: tuple[int, int, int],
    own_perturbations: bool,
) -> tuple[Any, TrainStep]:
    model = build_model(recipe, len(class_counts), shape)
    regime = build_regime(recipe, class_counts, first_step=0, micro_batch=recipe.micro_batch)
    if case != "cc_sam":
        regime = dataclasses.replace(regime, row_losses=False)
    second_stage = case == "sse_sam_stage2"
    optimizer = build_optimizer(recipe, class_counts, second_stage=second_stage)
    if own_perturbations:
        method = build_method(recipe, class_counts, second_stage)
        rest = build_optimizer(dataclasses.replace(recipe, method="sgd"), class_counts)
        optimizer = optax.chain(jaxlt.per_shard(method, _AXIS), rest)
    loss = build_loss(recipe, class_counts)
    step = make_train_step(model, optimizer, loss, len(class_counts), regime=regime)
    initialise = make_state_fn(model, optimizer, shape)
    return initialise, _averaging(step) if own_perturbations else step


def _averaging(step: TrainStep) -> TrainStep:
    """Makes what the shards' own clean passes leave in the state the same on all of them."""

    def averaging(state: TrainState, images: jax.Array, labels: jax.Array):
        after, loss = step(state, images, labels)
        loss, statistics = jax.lax.pmean((loss, after.batch_stats), _AXIS)
        loss_sum = state.loss_sum + loss
        return dataclasses.replace(after, batch_stats=statistics, loss_sum=loss_sum), loss

    return averaging


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
