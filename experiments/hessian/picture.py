"""Pictures of Hessian spectra: densities of eigenvalues, and the extreme ones by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.hessian.spectra import MEASURES, RowSpectra
from experiments.presentation import (
    deviation,
    legend_beside,
    lines_of_panels,
    mark_sizes,
    picture,
    run_styles,
)

_MOST_PANELS_IN_A_LINE = 4
_POINTS = 2000
# Below this share of the density's peak it is the tails of Gaussians.
_LOWEST_DENSITY = 1e-7


def draw_densities(rows: Sequence[RowSpectra], path: Path) -> None:
    """Draws the spectral density of each class or group, a line for each row."""
    names = list(rows[0].classes)
    lines, width = lines_of_panels(len(names), _MOST_PANELS_IN_A_LINE)
    with picture(path, lines, width, (2 + 3.2 * width, 2.8 * lines)) as (figure, panels):
        for name, axes in zip(names, panels.flat, strict=False):
            _draw_density(axes, name, rows)
        figure.supxlabel("eigenvalue of the Hessian")
        figure.supylabel("density")
        legend_beside(figure, panels[0, 0])


def _draw_density(axes: Any, name: str, rows: Sequence[RowSpectra]) -> None:
    spectra = [[classes[name].spectrum for classes in row.runs.values()] for row in rows]
    everything = [one for row in spectra for one in row]
    low = min(one.smallest for one in everything)
    high = max(one.largest for one in everything)
    margin = 0.05 * (high - low)
    # Eigenvalues span decades on both sides of 0, around which all but a few of them lie.
    reach = max(abs(low), high) + margin
    fine = 1e-3 * reach
    half = np.geomspace(fine, reach, _POINTS)
    grid = np.concatenate([-half[::-1], np.linspace(-fine, fine, 201)[1:-1], half])
    grid = grid[(grid >= low - margin) & (grid <= high + margin)]
    peak = 0.0
    for row, found, style in zip(rows, spectra, run_styles(), strict=False):
        density = np.mean([one.density(grid) for one in found], axis=0)
        peak = max(peak, density.max())
        axes.plot(grid, density, color=style["color"], linewidth=1, label=row.label)
    axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", ylim=(_LOWEST_DENSITY * peak, 3 * peak))
    axes.set_title(f"{name}, {rows[0].classes[name]['images']} images", fontsize="medium")
    axes.grid(alpha=0.3)


def draw_eigenvalues(rows: Sequence[RowSpectra], path: Path) -> None:
    """Draws eigenvalues, saddle measure and trace against class size, with deviations."""
    # The group of all classes has no place among class sizes.
    names = [name for name in rows[0].classes if name != "all"]
    sizes = np.array([rows[0].classes[name]["class_size"] for name in names])
    with picture(path, 2, 2, (11, 7), sharex=True) as (figure, panels):
        shown = ("largest", "smallest", "saddle_measure", "trace")
        for measure, axes in zip(shown, panels.flat, strict=True):
            for row, style in zip(rows, run_styles(), strict=False):
                found = np.array([row.over_runs(name, measure) for name in names]).T
                mean, spread = found.mean(axis=0), deviation(found)
                axes.plot(sizes, mean, label=row.label, markersize=5, **style)
                band = {"color": style["color"], "alpha": 0.12}
                axes.fill_between(sizes, mean - spread, mean + spread, **band)
            axes.set(ylabel=MEASURES[measure], xscale="log")
            axes.grid(alpha=0.3)
        for axes in panels[1]:
            mark_sizes(axes, sizes)
            axes.set_xlabel("training images of the class, head to tail")
        panels[0, 0].invert_xaxis()
        legend_beside(figure, panels[0, 0])
