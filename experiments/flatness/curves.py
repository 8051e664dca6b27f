"""Losses of groups of classes along random and adversarial directions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from experiments.analysed_run import AnalysedRun
from experiments.loaded_runs import seeds_rows
from experiments.ticker import ticking
from jaxlt.analysis import losses_along, of_norm, random_direction
from jaxlt.sharpness.perturbation import norm

Direction = Literal["random", "adversarial"]


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseCurves:
    """The curves of runs that are members of each other.

    Attributes:
        label: of the row.
        ratios: for each range (R,) values of `||eps|| / ||theta||`.
        losses: by direction, range and group (S, R) mean losses over the group's images in nats;
            the S curves are those of all runs and, where the direction is random, seeds.
    """

    label: str
    ratios: dict[str, np.ndarray]
    losses: dict[Direction, dict[str, dict[str, np.ndarray]]]


def curves_of(
    analysed: Sequence[AnalysedRun],
    ranges: Mapping[str, float],
    points: int,
    seeds: Sequence[int],
) -> list[NoiseCurves]:
    """Evaluates all runs.

    A random direction is standard normal. The adversarial direction of a group is the gradient of
    its mean loss at the trained parameters, that of SAM.

    Args:
        analysed: the runs.
        ranges: largest ratio of each range.
        points: R, ratios from 0 to the largest.
        seeds: of the random directions.
    """
    ratios = {name: np.linspace(0, largest, points) for name, largest in ranges.items()}
    total = sum(len(ranges) * (len(seeds) + len(one.groups)) for one in analysed)
    with ticking("flatness", total, "curve") as tick:

        def of_run(one: AnalysedRun) -> dict[Direction, dict[str, dict[str, np.ndarray]]]:
            length = float(norm(one.theta))

            def along(direction: Any, distances: np.ndarray) -> dict[str, np.ndarray]:
                by_class = losses_along(one.losses, one.theta, direction, distances * length)
                tick(1)
                return one.group_means(by_class)

            random = [
                of_norm(random_direction(jax.random.key(seed), one.theta), 1.0) for seed in seeds
            ]
            ascent = {
                group: of_norm(one.losses.of_classes(mask).gradient(one.theta), 1.0)
                for group, mask in one.groups.items()
            }
            return {
                "random": {
                    name: _stacked([along(direction, distances) for direction in random])
                    for name, distances in ratios.items()
                },
                "adversarial": {
                    name: {
                        group: along(direction, distances)[group][np.newaxis]
                        for group, direction in ascent.items()
                    }
                    for name, distances in ratios.items()
                },
            }

        found = [of_run(one) for one in analysed]
    return [
        NoiseCurves(label, ratios, _joined([found[number] for number in numbers]))
        for label, numbers in seeds_rows([one.run for one in analysed]).items()
    ]


def _stacked(curves: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {group: np.stack([one[group] for one in curves]) for group in curves[0]}


def _joined(runs: list[Any]) -> Any:
    """Concatenates arrays at the same places of nested dictionaries, whose order stays."""
    if isinstance(runs[0], dict):
        return {name: _joined([run[name] for run in runs]) for name in runs[0]}
    return np.concatenate(runs)


def values(rows: Sequence[NoiseCurves]) -> dict[str, Any]:
    """Returns what is saved as JSON."""
    return {row.label: {"ratios": row.ratios, **row.losses} for row in rows}
