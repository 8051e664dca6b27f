"""Sharpness by group of classes, measured while a stage trains."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, Shaped

from jaxlt.analysis.group_sharpness import group_sharpness
from jaxlt.batch.class_losses import Labels
from jaxlt.sharpness.perturbation import Mask
from jaxlt.training.step.network_pass import BatchLosses, Regime
from jaxlt.training.step.per_example_loss import PerExampleLoss
from jaxlt.training.step.state import TrainState, method_state

MeasureFn: TypeAlias = Callable[[TrainState, Shaped[Array, "batch ..."], Labels], dict[str, Array]]

_OF_METHOD = ("perturbation_norm", "method_sharpness")
# TensorBoard shows a curve a number, so that there is no room for one a class.
_MAX_CURVES = 10


def make_measure_fn(
    model: nn.Module,
    per_example_loss: PerExampleLoss,
    groups: Bool[np.ndarray, "groups classes"],
    *,
    regime: Regime | None = None,
    mask: Mask = None,
) -> MeasureFn:
    """Builds the measurement of a batch that a step is about to be taken with, a pure function.

    The losses are those of the step's passes, but of the images as they are: neither mixed nor with
    features moved by an adversary.

    Args:
        model: as the loss and the regime, see `make_train_step`.
        per_example_loss: from logits, labels and `Moment` to losses.
        groups: whether a class is in a group.
        regime: of the stage; None for nothing beside.
        mask: the parameters along which sharpness is measured; None for all.

    Returns:
        A function to the fields of `GroupSharpness` by name, and, where the optimizer has a
        sharpness-aware method, what that measured in the step before: `perturbation_norm` and
        `method_sharpness`, one of each for each of the method's own groups.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt, numpy as np, optax
        >>> from jaxlt import models, training
        >>> model = models.create_model("mlp", 2, image_shape=(2, 2, 1))
        >>> loss = lambda logits, labels, moment: jaxlt.losses.cross_entropy(logits, labels)
        >>> measure = jax.jit(training.make_measure_fn(model, loss, np.eye(2, dtype=bool)))
        >>> state = training.make_state_fn(model, optax.sgd(0.1), (2, 2, 1))(0)
        >>> images, labels = jnp.eye(4).reshape(4, 2, 2, 1), jnp.array([0, 1, 0, 1])
        >>> sorted(measure(state, images, labels))
        ['cosine', 'gradient_norm', 'loss', 'sharpness']
    """
    regime = dataclasses.replace(regime or Regime(), mixup=0.0, loss_of_features=None)
    losses_of = functools.partial(BatchLosses, model, per_example_loss, groups.shape[1], regime)

    def measure(
        state: TrainState, images: Shaped[Array, "batch ..."], labels: Labels
    ) -> dict[str, Array]:
        state, batch, held = regime.before_step(state), (images, labels), None
        if regime.hold_statistics:
            _, kept = losses_of(state, batch, keep=("held_statistics",))(state.params)
            held = kept.get("held_statistics")
        losses = losses_of(state, batch, held=held)
        measured = group_sharpness(
            lambda params: losses(params)[0], state.params, jnp.asarray(groups), mask=mask
        )._asdict()
        if (method := method_state(state.opt_state)) is not None:
            own = method.perturbation_norm, method.sharpness
            measured.update(zip(_OF_METHOD, own, strict=True))
        return measured

    return measure


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """The measurements of a stage: when they are taken, and how they are written down.

    Attributes:
        every: steps between two of them; the first is after so many steps of the stage.
        groups: by name, those of `make_measure_fn`.
        tail: of the stage's method, which is counted in batches alone; None without one.
    """

    every: int
    groups: Mapping[str, Bool[np.ndarray, " classes"]]
    tail: Bool[np.ndarray, " classes"] | None = None

    def describe(
        self, measured: Mapping[str, np.ndarray], labels: Integer[np.ndarray, "batches batch"]
    ) -> dict[str, Any]:
        """Returns a measurement as values of JSON, NaN in place of what is not finite.

        They go by name of group, by two names under `cosine`; under `batches_without` is the share
        of the K batches without any image of the group. What the method measured is a list.

        Args:
            measured: what the function of `make_measure_fn` returns.
            labels: of the batches since the measurement before.
        """
        values = {name: _shortest(array) for name, array in measured.items()}
        names, cosine = tuple(self.groups), values["cosine"]
        described: dict[str, Any] = {
            name: dict(zip(names, values[name], strict=True))
            for name in ("loss", "gradient_norm", "sharpness")
        }
        described["cosine"] = {
            f"{one}_{other}": cosine[i][j]
            for (i, one), (j, other) in itertools.combinations(enumerate(names), 2)
        }
        counted = {**self.groups} if self.tail is None else {**self.groups, "tail": self.tail}
        described["batches_without"] = {
            name: float((~classes[labels].any(axis=1)).mean()) for name, classes in counted.items()
        }
        return described | {name: values[name] for name in _OF_METHOD if name in values}


def curves(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields a measurement's finite numbers by path; of long lists, mean and maximum."""
    if isinstance(value, list) and len(value) > _MAX_CURVES:
        value = {"mean": math.fsum(value) / len(value), "max": max(value)}
    elif isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from curves(f"{name}/{key}", item)
    elif math.isfinite(value):
        yield name, value


def cut_at_measurements(
    first: int, last: int, every: int, longest: int
) -> Iterator[tuple[int, int, int]]:
    """Cuts steps into chunks up to a length that end at measurements, see `Program.cut`.

    They end at the multiples of a divisor of `every`; what is left at both ends is cut into tens
    and ones. So programs of three lengths are compiled, wherever measurements and evaluations meet.
    """
    size = next(size for size in range(min(every, longest), 0, -1) if every % size == 0)
    begin = min(-(-first // size) * size, last)
    end = max(last // size * size, begin)
    for start, stop, length in (
        *_tens_and_ones(first, begin, size),
        (begin, end, size),
        *_tens_and_ones(end, last, size),
    ):
        if start < stop:
            yield start, stop, length


def _tens_and_ones(first: int, last: int, size: int) -> Iterator[tuple[int, int, int]]:
    tens = min(10, size)
    between = last - (last - first) % tens
    yield first, between, tens
    yield between, last, 1


def _shortest(array: np.ndarray) -> Any:
    """Returns lists of the numbers with the fewest digits that tell a float32 from all others."""
    if array.ndim:
        return [_shortest(row) for row in array]
    return float(str(array)) if np.isfinite(array) else float("nan")
