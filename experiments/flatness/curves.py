"""Losses of groups of classes along random and adversarial directions, and their pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from experiments.analyzed_run import AnalyzedRun, ticking
from experiments.loaded_runs import seeds_rows
from experiments.presentation import deviation, legend_beside, picture, run_styles
from jaxlt.analysis import losses_along, random_direction
from jaxlt.analysis.landscape import of_norm
from jaxlt.sharpness.perturbation import norm

# Losses in nats by direction, range and group, (S, R): S curves, of all runs of a row and, where
# the direction is random, of all seeds; under "ratios", by range, R values of ||eps|| / ||theta||.
Curves: TypeAlias = dict[str, dict[str, Any]]

# So many times the smallest loss must the largest be for a logarithmic axis.
_LOG_FROM = 100
# Of the mean: a deviation may be larger than it, and has no logarithm then.
_LOWEST_OF_BAND = 0.1


def curves_of(
    analyzed: Sequence[AnalyzedRun],
    ranges: Mapping[str, float],
    points: int,
    seeds: Sequence[int],
) -> dict[str, Curves]:
    """Evaluates all runs; returns the curves of each row of members, by its label.

    Each range has R points from 0 to its largest ratio. A random direction is standard normal. The
    adversarial direction of a group is the gradient of its mean loss at the trained parameters,
    that of SAM.
    """
    ratios = {name: np.linspace(0, largest, points) for name, largest in ranges.items()}
    total = sum(len(ranges) * (len(seeds) + len(one.groups)) for one in analyzed)
    with ticking("flatness", total, "curve") as tick:

        def along(one: AnalyzedRun, direction: Any, name: str) -> dict[str, np.ndarray]:
            distances = ratios[name] * float(norm(one.theta))
            by_class = losses_along(one.losses, one.theta, of_norm(direction, 1.0), distances)
            tick(1)
            return one.group_means(by_class)

        def of_run(one: AnalyzedRun) -> Curves:
            random = [random_direction(jax.random.key(seed), one.theta) for seed in seeds]
            ascent = {
                group: one.losses.of_classes(mask).gradient(one.theta)
                for group, mask in one.groups.items()
            }
            found: Curves = {"random": {}, "adversarial": {}}
            for name in ranges:
                curves = [along(one, direction, name) for direction in random]
                found["random"][name] = {g: np.stack([c[g] for c in curves]) for g in ascent}
                found["adversarial"][name] = {
                    group: along(one, direction, name)[group][np.newaxis]
                    for group, direction in ascent.items()
                }
            return found

        found = [of_run(one) for one in analyzed]
    return {
        label: {"ratios": ratios, **_joined([found[number] for number in numbers])}
        for label, numbers in seeds_rows([one.run for one in analyzed]).items()
    }


def _joined(runs: list[Any]) -> Any:
    """Concatenates arrays at the same places of nested dictionaries, whose order stays."""
    if isinstance(runs[0], dict):
        return {name: _joined([run[name] for run in runs]) for name in runs[0]}
    return np.concatenate(runs)


def draw(rows: Mapping[str, Curves], direction: str, scope: str, path: Path) -> None:
    """Draws the mean loss over runs and seeds, by range and group, with its deviation as a band."""
    first = next(iter(rows.values()))[direction]
    columns = len(next(iter(first.values())))
    size = (2 + 3.2 * columns, 3.2 * len(first))
    with picture(path, len(first), columns, size) as (figure, panels):
        places = [(name, group) for name, groups in first.items() for group in groups]
        for (name, group), axes in zip(places, panels.flat, strict=True):
            losses = {label: row[direction][name][group] for label, row in rows.items()}
            ratios = next(iter(rows.values()))["ratios"][name]
            _draw_panel(axes, ratios, losses)
            axes.set_title(f"{group}, {name} range", fontsize="medium")
        what = "classifier" if scope == "classifier" else "trained"
        figure.supxlabel(f"||ε|| / ||θ||, θ: {what} parameters, {direction} ε", fontsize="medium")
        figure.supylabel("loss (nats)", fontsize="medium")
        legend_beside(figure, panels[0, 0])


def _draw_panel(axes: Any, ratios: np.ndarray, losses: Mapping[str, np.ndarray]) -> None:
    styles = run_styles(list(losses))
    for number, (label, style) in enumerate(zip(losses, styles, strict=True)):
        mean, spread = losses[label].mean(axis=0), deviation(losses[label])
        # Markers at different places, since lines may lie on each other.
        axes.plot(ratios, mean, label=label, markersize=4, markevery=(number % 4, 4), **style)
        lower = np.maximum(mean - spread, _LOWEST_OF_BAND * mean)
        axes.fill_between(ratios, lower, mean + spread, color=style["color"], alpha=0.12)
    means = [some.mean(axis=0) for some in losses.values()]
    if np.max(means) > _LOG_FROM * np.min(means) > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
