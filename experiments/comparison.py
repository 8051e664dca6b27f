"""Several methods on one long-tailed dataset: runs, then a table and a picture of all of them."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from tabulate import tabulate

from experiments.command_line import check_distinct
from experiments.execution import Execution
from experiments.experiment import Experiment, Replica
from experiments.presentation import (
    COLOURS,
    MARKERS,
    MEASURES,
    deviation,
    mean_and_deviation,
    percent,
)
from experiments.recipe import Recipe
from experiments.runs import run_all
from jaxlt.devices.compilation_cache import enable_compilation_cache
from jaxlt.files.json_files import write_json

mpl.use("Agg")
from matplotlib import pyplot as plt

_logger = logging.getLogger(__name__)

NAMES = {
    "sgd": "SGD",
    "sam": "SAM",
    "imb_sam": "ImbSAM",
    "sse_sam": "SSE-SAM",
    "focal_sam": "Focal-SAM",
    "cc_sam": "CC-SAM",
    "gradient_norm_penalty": "gradient-norm penalty",
    "random_perturbation": "random perturbation",
}
_MAX_TICKS = 12


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of all runs of a comparison.

    Attributes:
        class_counts: training images of each class.
        runs: for each method, one result (see `run_all`) a seed.
    """

    class_counts: tuple[int, ...]
    runs: dict[str, list[dict[str, Any]]]


def compare(
    base: Recipe,
    methods: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    workdir: Path,
    execution: Execution,
) -> Results:
    """Runs each method with each seed, finished runs being read and begun ones resumed.

    Args:
        base: recipe that the methods share.
        methods: for each method, the fields in which its recipe differs from the base.
        seeds: at least one.
        workdir: runs go to `METHOD/seedN` in it; `table.md`, `results.json` and
            `accuracy_by_class.png` to itself.
        execution: how the runs are computed.

    Raises:
        UsageError: as `Experiment` and `run_all`.
    """
    check_distinct("seed", seeds)
    check_distinct("method", tuple(methods))
    enable_compilation_cache()
    runs: dict[str, list[dict[str, Any]]] = {}
    counts: tuple[int, ...] = ()
    for method, fields in methods.items():
        experiment = Experiment(dataclasses.replace(base, method=method, **fields), execution)
        counts = experiment.split.class_counts
        runs[method] = run_all(
            experiment,
            [Replica(seed, workdir / method / f"seed{seed}") for seed in seeds],
            label=NAMES[method],
            mode=execution.replicas,
            keep_checkpoints=execution.keep_checkpoints,
        )
    results = Results(counts, runs)
    _save(results, workdir)
    return results


def _save(results: Results, workdir: Path) -> None:
    table = format_table(results)
    (workdir / "table.md").write_text(table + "\n")
    write_json(workdir / "results.json", dataclasses.asdict(results))
    draw(results, workdir / "accuracy_by_class.png")
    print(f"\n{table}\n")
    _logger.info("table, results and picture are in %s", workdir)


def format_table(results: Results) -> str:
    """Renders accuracies in percent, mean and sample deviation over seeds, as Markdown."""
    rows = [
        [NAMES[method]]
        + [mean_and_deviation([percent(run[group]) for run in runs], 1) for group in MEASURES]
        + [mean_and_deviation([run["seconds"] for run in runs], 1)]
        for method, runs in results.runs.items()
    ]
    headers = ["method", *MEASURES.values(), "seconds"]
    return tabulate(rows, headers, tablefmt="github", stralign="right")


def draw(results: Results, path: Path) -> None:
    """Draws accuracy by class against class size, one line a method, with its deviation."""
    order = np.argsort(results.class_counts)[::-1]
    sizes = np.array(results.class_counts)[order]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for (method, runs), colour, marker in zip(results.runs.items(), COLOURS, MARKERS, strict=False):
        accuracy = 100 * np.array([run["per_class"] for run in runs], dtype=float)[:, order]
        mean, spread = accuracy.mean(axis=0), deviation(accuracy)
        axes.plot(sizes, mean, color=colour, marker=marker, label=NAMES[method])
        axes.fill_between(sizes, mean - spread, mean + spread, color=colour, alpha=0.12)
    axes.set_xscale("log")
    ticks = sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), _MAX_TICKS), dtype=int)]
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("training images of the class")
    axes.set_ylabel("test accuracy of the class (%)")
    seeds = len(next(iter(results.runs.values())))
    axes.set_title(f"Accuracy by class, mean and deviation over {seeds} seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def read_results(path: Path) -> Results:
    """Reads the `results.json` that `compare` wrote."""
    values = json.loads(path.read_text())
    return Results(tuple(values["class_counts"]), values["runs"])
