"""The benchmark's tables and picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.benchmark.cases import LABELS, CaseName
from experiments.benchmark.compiled_step import StepCost, StepMemory
from experiments.benchmark.timing import paired_ratio
from experiments.presentation import COLORS, markdown_table, picture

_COLORS = {"FLOPs": COLORS[7], "time": COLORS[6], "time in PyTorch": COLORS[1]}


def format_costs(costs: Mapping[CaseName, StepCost]) -> str:
    """Renders costs and, in brackets or columns of their own, their ratios to SGD's."""
    sgd = costs["sgd"]
    headers = ["method", "GFLOP", "GB", "MiB", "compile s", "ms", "quartiles", "ratio"]
    rows = [[LABELS[case], *_own_cells(cost, sgd)] for case, cost in costs.items()]
    if sgd.torch_seconds is not None:
        headers += ["torch ms", "torch ratio", "jax/torch"]
        for row, cost in zip(rows, costs.values(), strict=True):
            row += _peer_cells(cost, sgd)
    return markdown_table(headers, rows)


def format_memory(memory: Mapping[CaseName, StepMemory]) -> str:
    """Renders bytes in MiB and, in brackets, the ratio of their sum to SGD's."""
    headers = ["method", "arguments MiB", "results MiB", "temporaries MiB", "reused MiB", "MiB"]
    rows = []
    for case, step in memory.items():
        peak = _with_ratio(step.peak, memory["sgd"].peak, 2**20)
        rows.append([LABELS[case], *(_number(size / 2**20) for size in step), peak])
    return markdown_table(headers, rows)


def _own_cells(cost: StepCost, sgd: StepCost) -> list[str]:
    lower, median, upper = (_number(1e3 * s) for s in np.percentile(cost.seconds, [25, 50, 75]))
    preparation, of_sgd = (one.trace_seconds + one.compile_seconds for one in (cost, sgd))
    return [
        _with_ratio(cost.flops, sgd.flops, 1e9),
        _with_ratio(cost.bytes, sgd.bytes, 1e9),
        _with_ratio(cost.peak_memory, sgd.peak_memory, 2**20),
        _with_ratio(preparation, of_sgd),
        median,
        f"{lower} to {upper}",
        f"{paired_ratio(cost.seconds, sgd.seconds):.2f}",
    ]


def _peer_cells(cost: StepCost, sgd: StepCost) -> list[str]:
    if cost.torch_seconds is None or sgd.torch_seconds is None:
        return ["-", "-", "-"]
    return [
        _number(1e3 * np.median(cost.torch_seconds)),
        f"{paired_ratio(cost.torch_seconds, sgd.torch_seconds):.2f}",
        f"{paired_ratio(cost.seconds, cost.torch_seconds):.2f}",
    ]


def _with_ratio(value: float, sgd: float, unit: float = 1) -> str:
    return f"{_number(value / unit)} ({value / sgd:.2f})"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def draw(costs: Mapping[CaseName, StepCost], title: str, path: Path) -> None:
    """Draws each case's FLOPs and times over SGD's as bars."""
    sgd = costs["sgd"]
    bars = {
        "FLOPs": [cost.flops / sgd.flops for cost in costs.values()],
        "time": [paired_ratio(cost.seconds, sgd.seconds) for cost in costs.values()],
    }
    if sgd.torch_seconds is not None:
        bars["time in PyTorch"] = [
            paired_ratio(cost.torch_seconds, sgd.torch_seconds) if cost.torch_seconds else np.nan
            for cost in costs.values()
        ]
    places, width = np.arange(len(costs)), 0.8 / len(bars)
    with picture(path, 1, 1, (9, 5)) as (_, panels):
        axes = panels[0, 0]
        for index, (label, ratios) in enumerate(bars.items()):
            offset = (index - (len(bars) - 1) / 2) * width
            drawn = axes.bar(places + offset, ratios, width, label=label, color=_COLORS[label])
            texts = ["" if np.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
            axes.bar_label(drawn, texts, fontsize=7)
        axes.set_xticks(places, [LABELS[case].replace(", ", "\n") for case in costs])
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylabel("one step over SGD's")
        axes.set_title(title)
        axes.legend()
