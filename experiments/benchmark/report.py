"""The benchmark's table and picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from tabulate import tabulate

from experiments.benchmark.cases import CaseName
from experiments.benchmark.compiled_step import StepMemory
from experiments.benchmark.rounds import paired_ratio, spread

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES: dict[CaseName, str] = {
    "sgd": "SGD",
    "sam": "SAM",
    "imb_sam": "ImbSAM",
    "focal_sam": "Focal-SAM",
    "sse_sam_stage1": "SSE-SAM, stage 1",
    "sse_sam_stage2": "SSE-SAM, stage 2",
    "cc_sam": "CC-SAM, classifier",
    "cc_sam_all": "CC-SAM, all parameters",
}
# Okabe and Ito's colours, told apart by colour-blind readers.
_COLOURS = {"FLOPs": "#999999", "time": "#0072B2", "time in PyTorch": "#E69F00"}


@dataclass(frozen=True)
class Measurement:
    """What one case cost.

    Attributes:
        flops: floating-point operations of the path taken, by XLA's analysis.
        bytes: bytes read and written on the path taken, likewise.
        peak_memory: bytes of arguments, results and temporaries.
        trace_seconds: from Python to XLA's input.
        compile_seconds: from there to the device's program.
        seconds: of one step, one number a round.
        torch_seconds: of the peer's step in the same rounds, None where there is none.
    """

    flops: float
    bytes: float
    peak_memory: int
    trace_seconds: float
    compile_seconds: float
    seconds: list[float]
    torch_seconds: list[float] | None = None


Measurements = Mapping[CaseName, Measurement]


def format_table(measurements: Measurements) -> str:
    """Renders costs and, in brackets or columns of their own, their ratios to SGD, as Markdown."""
    sgd = measurements["sgd"]
    with_peer = sgd.torch_seconds is not None
    headers = ["method", "GFLOP", "GB", "MiB", "compile s", "ms", "quartiles", "ratio"]
    headers += ["torch ms", "torch ratio", "jax/torch"] if with_peer else []
    rows = [
        [NAMES[case], *_own_cells(measured, sgd)]
        + (_peer_cells(measured, sgd) if with_peer else [])
        for case, measured in measurements.items()
    ]
    return tabulate(rows, headers, tablefmt="github", stralign="right", disable_numparse=True)


def format_memory(memory: Mapping[CaseName, StepMemory]) -> str:
    """Renders bytes in MiB and, in brackets, the ratio of their sum to SGD's, as Markdown."""
    headers = ["method", "arguments MiB", "results MiB", "temporaries MiB", "reused MiB", "MiB"]
    rows = [
        [
            NAMES[case],
            *(_number(size / 2**20) for size in step),
            _with_ratio(step.peak / 2**20, memory["sgd"].peak / 2**20),
        ]
        for case, step in memory.items()
    ]
    return tabulate(rows, headers, tablefmt="github", stralign="right", disable_numparse=True)


def _own_cells(measured: Measurement, sgd: Measurement) -> list[str]:
    time = spread(measured.seconds)
    return [
        _with_ratio(measured.flops / 1e9, sgd.flops / 1e9),
        _with_ratio(measured.bytes / 1e9, sgd.bytes / 1e9),
        _with_ratio(measured.peak_memory / 2**20, sgd.peak_memory / 2**20),
        _with_ratio(_preparation(measured), _preparation(sgd)),
        _number(1e3 * time.median),
        f"{_number(1e3 * time.lower)} to {_number(1e3 * time.upper)}",
        f"{paired_ratio(measured.seconds, sgd.seconds):.2f}",
    ]


def _peer_cells(measured: Measurement, sgd: Measurement) -> list[str]:
    if measured.torch_seconds is None or sgd.torch_seconds is None:
        return ["-", "-", "-"]
    return [
        _number(1e3 * spread(measured.torch_seconds).median),
        f"{paired_ratio(measured.torch_seconds, sgd.torch_seconds):.2f}",
        f"{paired_ratio(measured.seconds, measured.torch_seconds):.2f}",
    ]


def _preparation(measured: Measurement) -> float:
    return measured.trace_seconds + measured.compile_seconds


def _with_ratio(value: float, sgd: float) -> str:
    return f"{_number(value)} ({value / sgd:.2f})"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def draw(measurements: Measurements, title: str, path: Path) -> None:
    """Draws each case's FLOPs and times over SGD's as bars."""
    sgd = measurements["sgd"]
    bars = {"FLOPs": [measured.flops / sgd.flops for measured in measurements.values()]}
    bars["time"] = [paired_ratio(case.seconds, sgd.seconds) for case in measurements.values()]
    if sgd.torch_seconds is not None:
        bars["time in PyTorch"] = [
            paired_ratio(case.torch_seconds, sgd.torch_seconds) if case.torch_seconds else np.nan
            for case in measurements.values()
        ]
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    places, width = np.arange(len(measurements)), 0.8 / len(bars)
    for index, (label, ratios) in enumerate(bars.items()):
        offset = (index - (len(bars) - 1) / 2) * width
        drawn = axes.bar(places + offset, ratios, width, label=label, color=_COLOURS[label])
        texts = ["" if np.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
        axes.bar_label(drawn, texts, fontsize=7)
    axes.set_xticks(places, [NAMES[case].replace(", ", "\n") for case in measurements])
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("one step over SGD's")
    axes.set_title(title)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
