"""Sharpness by group of classes, measured while a stage trains."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.analysis.group_sharpness import group_sharpness
from jaxlt.sharpness.perturbation import Mask
from jaxlt.training.step.batch_losses import BatchLosses
from jaxlt.training.step.network_pass import (
    NetworkPass,
    PerExampleLoss,
    Regime,
    moment_of,
    with_vectors_of_step,
)
from jaxlt.training.step.state import TrainState, method_state

# (state, images (B, H, W, C), labels (B,)) -> named arrays
MeasureFn: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], dict[str, jax.Array]]

_OF_METHOD = ("perturbation_norm", "method_sharpness")


def make_measure_fn(
    model: nn.Module,
    per_example_loss: PerExampleLoss,
    groups: np.ndarray,
    *,
    regime: Regime | None = None,
    mask: Mask = None,
) -> MeasureFn:
    """Builds the measurement of a batch that a step is about to be taken with, a pure function.

    The losses are those of the step's passes, but of the images as they are: neither mixed nor with
    features moved by an adversary.

    Args:
        model: called as `model(images, train=...)`.
        per_example_loss: from logits, labels and `Moment` to losses.
        groups: (G, C) bool, whether a class is in a group.
        regime: of the stage; None for nothing beside.
        mask: the parameters along which sharpness is measured, those that the stage trains; None
            for all.

    Returns:
        A function to the fields of `jaxlt.analysis.group_sharpness.GroupSharpness` by name, and,
        where the optimizer has a sharpness-aware method, what that measured in the step before:
        `perturbation_norm` and `method_sharpness`, one of each for each of the method's own groups.
    """
    regime = dataclasses.replace(regime or Regime(), mixup=0.0, loss_of_features=None)
    losses_of = BatchLosses(model, per_example_loss, groups.shape[1], regime)

    def measure(state: TrainState, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        state = with_vectors_of_step(state, regime)
        batch, moment, held = (images, labels), moment_of(state, regime), None
        if regime.hold_statistics:
            clean_pass = NetworkPass(model, state, regime, keep=("held_statistics",))
            _, kept = losses_of(clean_pass, state.params, batch, moment)
            held = kept.get("held_statistics")
        network_pass = NetworkPass(model, state, regime, held=held)
        measured = group_sharpness(
            lambda params: losses_of(network_pass, params, batch, moment)[0],
            state.params,
            jnp.asarray(groups),
            mask=mask,
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
        groups: for each name, (C,) bool, whether a class is in the group; in the order of the
            `groups` of `make_measure_fn`.
        tail: (C,) bool, the tail of the stage's method, which is counted in batches alone; None for
            a method without one.
    """

    every: int
    groups: Mapping[str, np.ndarray]
    tail: np.ndarray | None = None

    def due(self, step: int) -> bool:
        """Whether one is taken after so many steps of the stage."""
        return step > 0 and step % self.every == 0

    def describe(self, measured: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
        """Returns a measurement as values of JSON, NaN in place of what is not finite.

        Args:
            measured: what the function of `make_measure_fn` returns.
            labels: (K, B), of the batches since the measurement before.

        Returns:
            Numbers by name of group under `loss`, `gradient_norm` and `sharpness`, by two names
            under `cosine`; under `batches_without` the share of the K batches without any image of
            the group, or of the tail. What the method measured is a list.
        """
        values = {name: _shortest(array) for name, array in measured.items()}
        names, cosine = tuple(self.groups), values["cosine"]
        described: dict[str, Any] = {
            name: dict(zip(names, values[name], strict=True))
            for name in ("loss", "gradient_norm", "sharpness")
        }
        described["cosine"] = {
            f"{names[i]}_{names[j]}": cosine[i][j]
            for i, j in itertools.combinations(range(len(names)), 2)
        }
        counted = {**self.groups} if self.tail is None else {**self.groups, "tail": self.tail}
        described["batches_without"] = {
            name: float((~classes[labels].any(axis=1)).mean()) for name, classes in counted.items()
        }
        return described | {name: values[name] for name in _OF_METHOD if name in values}


def _shortest(array: np.ndarray) -> Any:
    """Returns lists of the numbers with the fewest digits that tell them from all others.

    A float32 as a float64 has twice as many.
    """
    if array.ndim:
        return [_shortest(row) for row in array]
    return float(str(array)) if np.isfinite(array) else float("nan")
