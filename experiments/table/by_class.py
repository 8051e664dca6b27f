"""Methods compared class by class: a picture, and the numbers of all runs in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.presentation import COLOURS, MARKERS, deviation
from experiments.table.plan import Plan
from experiments.table.results import finished_runs
from jaxlt.files.json_files import write_json

mpl.use("Agg")
from matplotlib import pyplot as plt

_MAX_TICKS = 12


def write_by_class(plan: Plan, directory: Path, seeds: Sequence[int]) -> list[str]:
    """Writes `results.json` and `accuracy_by_class.png` of what is finished; returns their names.

    Args:
        plan: whose rows are methods on the same images.
        directory: of the runs and of both files.
        seeds: of each method.
    """
    labels = {cell.name: cell.row for cell in plan.cells}
    runs: dict[str, list[dict[str, Any]]] = {}
    counts: list[int] = []
    for name, recipe in plan.recipes.items():
        finished = finished_runs(directory, name, recipe, seeds).values()
        for run in finished:
            counts = run.class_counts.tolist()
        if finished:
            runs[name] = [run.read_result() or {} for run in finished]
    write_json(directory / "results.json", {"class_counts": counts, "runs": runs})
    shown = {labels[name]: results for name, results in runs.items()}
    draw(counts, shown, directory / "accuracy_by_class.png")
    return ["results.json", "accuracy_by_class.png"]


def draw(
    class_counts: Sequence[int], runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """Draws accuracy by class against class size, one line a method, with its deviation.

    Args:
        class_counts: training images of each class.
        runs: of each method, by its label, the results.
        path: of the PNG.
    """
    order = np.argsort(class_counts)[::-1]
    sizes = np.array(class_counts)[order]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for (label, results), colour, marker in zip(runs.items(), COLOURS, MARKERS, strict=False):
        accuracy = 100 * np.array([run["per_class"] for run in results], dtype=float)[:, order]
        mean, spread = accuracy.mean(axis=0), deviation(accuracy)
        axes.plot(sizes, mean, color=colour, marker=marker, label=label)
        axes.fill_between(sizes, mean - spread, mean + spread, color=colour, alpha=0.12)
    axes.set_xscale("log")
    ticks = sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), _MAX_TICKS), dtype=int)]
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("training images of the class")
    axes.set_ylabel("test accuracy of the class (%)")
    seeds = max(map(len, runs.values()))
    axes.set_title(f"Accuracy by class, mean and deviation over {seeds} seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
