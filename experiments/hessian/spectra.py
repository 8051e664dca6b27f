"""Spectra of the Hessians of each class's loss, and the table of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from tabulate import tabulate

from experiments.analysed_run import ALL, AnalysedRun, check_same_parts
from experiments.loaded_runs import seeds_rows
from experiments.presentation import mean_and_deviation
from experiments.ticker import ticking
from jaxlt.analysis import Spectrum, Trace, hessian_product, spectrum, trace
from jaxlt.sharpness.perturbation import norm


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCurvature:
    """What is known of the mean loss of some classes' images at the end of a run.

    Attributes:
        images: how many images.
        class_size: training images of the class, or of the group's mean class.
        loss: nats.
        gradient_norm: of the loss.
        spectrum: of its Hessian.
        trace: of its Hessian.
    """

    images: int
    class_size: float
    loss: float
    gradient_norm: float
    spectrum: Spectrum
    trace: Trace


@dataclasses.dataclass(frozen=True, eq=False)
class RowSpectra:
    """The parts, by name of class or group, of each of a row's runs."""

    label: str
    runs: dict[str, dict[str, ClassCurvature]]

    def over_runs(self, part: str, measure: Callable[[ClassCurvature], float]) -> list[float]:
        """Returns a measure of one part, of each run."""
        return [measure(parts[part]) for parts in self.runs.values()]

    @property
    def parts(self) -> Mapping[str, ClassCurvature]:
        """Those of the first run: their names and sizes are the same in all."""
        return next(iter(self.runs.values()))


MEASURES: dict[str, tuple[str, Callable[[ClassCurvature], float]]] = {
    "loss": ("loss", lambda part: part.loss),
    "gradient_norm": ("||gradient||", lambda part: part.gradient_norm),
    "largest": ("λ max", lambda part: part.spectrum.largest),
    "smallest": ("λ min", lambda part: part.spectrum.smallest),
    "saddle_measure": ("|λ min / λ max|", lambda part: part.spectrum.saddle_measure),
    "trace": ("trace", lambda part: part.trace.mean),
}
"""From the name of a measure to its heading and what it is."""


def spectra_of(
    analysed: Sequence[AnalysedRun],
    *,
    by: Literal["class", "group"],
    lanczos_steps: int,
    vectors: int,
    trace_samples: int,
    seed: int,
) -> list[RowSpectra]:
    """Computes the spectra of all runs, see the flags of the program for the arguments.

    Raises:
        UsageError: by class, the runs have other classes.
    """
    masks = [_masks(one, by) for one in analysed]
    check_same_parts(analysed, [tuple(parts) for parts in masks], "classes")
    # The time of a spectrum grows with its images.
    total = sum(
        one.losses.counts[mask].sum()
        for one, parts in zip(analysed, masks, strict=True)
        for mask in parts.values()
    )

    def part(one: AnalysedRun, mask: np.ndarray, key: jax.Array) -> ClassCurvature:
        losses = one.losses.of_classes(mask)
        product, dimension = hessian_product(losses, one.theta)
        starts, samples = jax.random.split(key)
        found = ClassCurvature(
            int(losses.counts.sum()),
            float(one.run.class_counts[mask].mean()),
            float(losses.mean(one.theta)),
            float(norm(losses.gradient(one.theta))),
            spectrum(product, dimension, starts, num_steps=lanczos_steps, num_vectors=vectors),
            trace(product, dimension, samples, num_samples=trace_samples),
        )
        tick(found.images)
        return found

    with ticking("hessian", int(total), "image") as tick:
        found = [
            {
                name: part(one, mask, jax.random.fold_in(jax.random.key(seed), number))
                for number, (name, mask) in enumerate(parts.items())
            }
            for one, parts in zip(analysed, masks, strict=True)
        ]
    return [
        RowSpectra(label, {analysed[n].run.label: found[n] for n in numbers})
        for label, numbers in seeds_rows([one.run for one in analysed]).items()
    ]


def _masks(one: AnalysedRun, by: Literal["class", "group"]) -> dict[str, np.ndarray]:
    if by == "group":
        return one.groups
    present = one.groups[ALL]
    # From head to tail.
    order = np.argsort(-one.run.class_counts, kind="stable")
    names = one.run.predictor().class_names
    # Two of ImageNet's classes are called crane.
    labels = [n if names.count(n) == 1 else f"{n} ({c})" for c, n in enumerate(names)]
    return {labels[c]: np.arange(len(labels)) == c for c in order if present[c]}


def values(rows: Sequence[RowSpectra]) -> dict[str, Any]:
    """Returns what is saved as JSON."""
    return {
        row.label: {
            run: {
                name: {
                    "images": part.images,
                    "class_size": part.class_size,
                    **{key: measure(part) for key, (_, measure) in MEASURES.items()},
                    "trace_standard_error": part.trace.standard_error,
                    "residual": part.spectrum.residual,
                    "ritz_values": part.spectrum.ritz_values,
                    "weights": part.spectrum.weights,
                }
                for name, part in parts.items()
            }
            for run, parts in row.runs.items()
        }
        for row in rows
    }


def format_table(rows: Sequence[RowSpectra]) -> str:
    """Renders one line for each row of runs and each class or group, as Markdown."""
    lines = [
        [row.label, name, part.images]
        + [mean_and_deviation(row.over_runs(name, m), 3) for _, m in MEASURES.values()]
        for row in rows
        for name, part in row.parts.items()
    ]
    headers = ["run", "images of", "number", *(heading for heading, _ in MEASURES.values())]
    alignment = ("left", "left", *("right" for _ in headers[2:]))
    table = tabulate(lines, headers, tablefmt="github", colalign=alignment, disable_numparse=True)
    return f"{table}\n\n{_accuracy(rows)}"


def _accuracy(rows: Sequence[RowSpectra]) -> str:
    """Says how far extreme eigenvalues are known, the largest bound relative to lambda max."""
    spectra = [
        part.spectrum for row in rows for parts in row.runs.values() for part in parts.values()
    ]
    worst = max((one.residual / one.largest for one in spectra if one.largest > 0), default=0.0)
    return f"λ max and λ min are known to {worst:.1g} of λ max or better, and rounding."
