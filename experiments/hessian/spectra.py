"""Spectra of the Hessians of each class's loss, their table and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from experiments.analyzed_run import ALL, AnalyzedRun, check_same, ticking
from experiments.loaded_runs import seeds_rows
from experiments.presentation import (
    deviation,
    legend_beside,
    lines_of_panels,
    mark_sizes,
    markdown_table,
    mean_and_deviation,
    picture,
    run_styles,
)
from jaxlt.analysis import Spectrum, hessian_product, spectrum, trace
from jaxlt.sharpness.perturbation import norm

if TYPE_CHECKING:
    from experiments.hessian.__main__ import Arguments

_MOST_PANELS_IN_A_LINE = 4
_POINTS = 2000
# Below this share of the density's peak it is the tails of Gaussians.
_LOWEST_DENSITY = 1e-7


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCurvature:
    """The mean loss of the images of a class, or a group of classes, at the end of a run."""

    measures: dict[str, Any]
    spectrum: Spectrum


@dataclasses.dataclass(frozen=True, eq=False)
class RowSpectra:
    """The curvatures, by name of class or group, of each of a row's runs."""

    label: str
    runs: dict[str, dict[str, ClassCurvature]]

    def over_runs(self, name: str, measure: str) -> list[float]:
        """Returns a measure of one class or group, of each run."""
        return [classes[name].measures[measure] for classes in self.runs.values()]

    @property
    def classes(self) -> Mapping[str, dict[str, Any]]:
        """Measures of the first run: names and sizes of classes are the same in all."""
        return {name: one.measures for name, one in next(iter(self.runs.values())).items()}


MEASURES = {
    "loss": "loss",
    "gradient_norm": "||gradient||",
    "largest": "λ max",
    "smallest": "λ min",
    "saddle_measure": "|λ min / λ max|",
    "trace": "trace",
}
"""From the name of a measure to its heading."""


def spectra_of(analyzed: Sequence[AnalyzedRun], settings: "Arguments") -> list[RowSpectra]:
    """Computes the spectra of all runs."""
    masks = [_masks(one, settings.by) for one in analyzed]
    check_same(analyzed, [tuple(one) for one in masks], "classes")
    # The time of a spectrum grows with its images.
    total = sum(
        int(one.losses.counts[mask].sum())
        for one, classes in zip(analyzed, masks, strict=True)
        for mask in classes.values()
    )

    def curvature(one: AnalyzedRun, mask: np.ndarray, number: int) -> ClassCurvature:
        losses = one.losses.of_classes(mask)
        product, dimension = hessian_product(losses, one.theta)
        key = jax.random.fold_in(jax.random.key(settings.seed), number)
        starts, samples = jax.random.split(key)
        steps, vectors = settings.lanczos_steps, settings.vectors
        found = spectrum(product, dimension, starts, num_steps=steps, num_vectors=vectors)
        estimate = trace(product, dimension, samples, num_samples=settings.trace_samples)
        measures = {
            "images": int(losses.counts.sum()),
            # Training images of the class, or of the group's mean class.
            "class_size": float(one.run.class_counts[mask].mean()),
            "loss": float(losses.mean(one.theta)),
            "gradient_norm": float(norm(losses.gradient(one.theta))),
            "largest": found.largest,
            "smallest": found.smallest,
            "saddle_measure": found.saddle_measure,
            "trace": estimate.mean,
            "trace_standard_error": estimate.standard_error,
            "residual": found.residual,
            "ritz_values": found.ritz_values,
            "weights": found.weights,
        }
        tick(measures["images"])
        return ClassCurvature(measures, found)

    with ticking("hessian", total, "image") as tick:
        found = [
            {
                name: curvature(one, mask, number)
                for number, (name, mask) in enumerate(classes.items())
            }
            for one, classes in zip(analyzed, masks, strict=True)
        ]
    return [
        RowSpectra(label, {analyzed[n].run.label: found[n] for n in numbers})
        for label, numbers in seeds_rows([one.run for one in analyzed]).items()
    ]


def _masks(one: AnalyzedRun, by: Literal["class", "group"]) -> dict[str, np.ndarray]:
    if by == "group":
        return one.groups
    present = one.groups[ALL]
    # From head to tail.
    order = np.argsort(-one.run.class_counts, kind="stable")
    names = one.run.predictor().class_names
    # Two of ImageNet's classes are called crane.
    labels = [n if names.count(n) == 1 else f"{n} ({c})" for c, n in enumerate(names)]
    return {labels[c]: np.arange(len(labels)) == c for c in order if present[c]}


def format_table(rows: Sequence[RowSpectra]) -> str:
    """Renders one line for each row of runs and each class or group, as Markdown."""
    lines = [
        [row.label, name, one["images"]]
        + [mean_and_deviation(row.over_runs(name, measure), 3) for measure in MEASURES]
        for row in rows
        for name, one in row.classes.items()
    ]
    headers = ["run", "images of", "number", *MEASURES.values()]
    spectra = [one.spectrum for row in rows for run in row.runs.values() for one in run.values()]
    # How far extreme eigenvalues are known, the largest bound relative to the largest.
    worst = max((one.residual / one.largest for one in spectra if one.largest > 0), default=0.0)
    return (
        f"{markdown_table(headers, lines, left=2)}\n\n"
        f"λ max and λ min are known to {worst:.1g} of λ max or better, and rounding."
    )


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
    styles = run_styles([row.label for row in rows])
    for row, found, style in zip(rows, spectra, styles, strict=True):
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
            for row, style in zip(rows, run_styles([r.label for r in rows]), strict=True):
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
