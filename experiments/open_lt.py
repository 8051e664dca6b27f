"""Open-set evaluation of finished runs: `python -m experiments.open_lt --checkpoint RUN...`."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from experiments import command_line
from experiments.presentation import (
    COLORS,
    MEASURES,
    legend_beside,
    markdown_table,
    mean_and_deviation,
    percent,
    picture,
)
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    from jaxlt.data import ImageSet, Resize, Source
    from jaxlt.evaluation.open_set import Answers
    from jaxlt.recipes.recorded import TrainedRun

_SOFTMAX_THRESHOLD = 0.1
_ACCEPTED_SHARE = 0.95
_SHARES = {**MEASURES, "open_accuracy": "open"}
_NUMBERS = {
    "f_oltr": "F (oltr)",
    "f_balms": "F (balms)",
    "auroc": "AUROC",
    "threshold": "threshold",
}
_LINES = ("-", "--", ":", "-.")
_NOTE = (
    "many, medium, few and all are accuracies on the closed set in percent, rejected images being "
    "wrong; open is the percentage of open images that are rejected."
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs; one row of the table each."""
    dataset: str | None = None
    """Where the runs' data are now, such as folder:DIR; none for where they were trained."""
    open: str | None = None
    """Source of the open set, of whose classes the runs know none: its open list if it has one,
    otherwise its test images; as --data.source takes it. Images are converted to a run's size and
    channels; none for the open list of a run's own source."""
    metric: Literal["softmax", "prototype"] = "softmax"
    """Score by which images are rejected. softmax: largest probability (OLTR). prototype: largest
    cosine similarity to the mean of a class's training features (CC-SAM)."""
    threshold: float | None = None
    """Images of lower scores are rejected; none for OLTR's 0.1 with softmax, and with prototype for
    that at which 95% of a run's training images are accepted."""
    output: Path | None = None
    """Directory of table.md, open_set.json and open_set.png; none for RUN/open_set, for each run
    its own."""


class OpenSetResult(NamedTuple):
    """A run's label and what is saved of it: measures, and its threshold curve as "curve"."""

    label: str
    values: dict[str, Any]


def main() -> None:
    """Parses the flags, evaluates each run, prints the table and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.open_lt",
        "Evaluates finished runs on their test set together with images of unknown classes.",
    )
    from experiments.loaded_runs import destinations, load_runs, say_written, write_reports
    from jaxlt.devices.backends import enable_compilation_cache

    enable_compilation_cache()
    runs = load_runs(arguments.checkpoint, arguments.dataset)
    places = destinations(runs, arguments.output, "open_set")
    results = [_evaluate(run, _open_images(run, arguments.open), arguments) for run in runs]
    write_reports(places, results, lambda place, shown: _write(place, shown, arguments))
    print(f"\n{format_table(results)}\n\n{_NOTE}\n")
    say_written(places, arguments.checkpoint, "ood --generate")


def format_table(results: Sequence[OpenSetResult]) -> str:
    """Renders one row a run as Markdown."""
    rows = [
        [result.label]
        + [mean_and_deviation([percent(result.values[name])], 2) for name in _SHARES]
        + [mean_and_deviation([result.values[name]], 3) for name in _NUMBERS]
        for result in results
    ]
    return markdown_table(["run", *_SHARES.values(), *_NUMBERS.values()], rows)


def _open_images(run: "TrainedRun", spec: str | None) -> "ImageSet":
    if spec is None:
        if run.source.open is None:
            raise UsageError(
                f"open must name a source, got none, and that of run {run.path} has no open list; "
                "it may be the run's own with one more list, list:ROOT,TRAIN,VAL,TEST,OPEN"
            )
        return run.source.open
    # Read as the run reads its own: otherwise how images are cut would tell open from closed.
    source = _load(spec, max(run.predictor().image_shape[:2]), run.predictor().resize)
    if source.open is not None:
        return source.open
    if spec == run.source.name:
        raise UsageError(f"open must be another source than run {run.path}'s own, got {spec}")
    if len(source.test.labels) == 0:
        raise UsageError(f"open must have a list of test or open images, got neither in {spec}")
    return source.test


@functools.cache
def _load(spec: str, image_size: int, resize: "Resize") -> "Source":
    """Loads an open source once for all runs of one image size."""
    from jaxlt.data import load_source
    from jaxlt.data.sources.source import is_of_files

    resize = resize if is_of_files(spec) else "stretch"
    # Its training images are not asked for, so one that is unreadable does no harm.
    return load_source(spec, image_size=image_size, resize=resize, unreadable="skip")


def _evaluate(run: "TrainedRun", opened: "ImageSet", arguments: Arguments) -> OpenSetResult:
    from jaxlt.evaluation import open_set

    answers, threshold = _answers(run, opened, arguments)
    decided = answers.decided(threshold)
    per_class = open_set.per_class_accuracy(answers.labels, decided, run.num_classes)
    values = {
        **open_set.open_set_measures(answers, threshold),
        **run.by_group(per_class),
        "threshold": threshold,
        "per_class": per_class.tolist(),
        "closed_images": int((answers.labels >= 0).sum()),
        "open_images": int((answers.labels < 0).sum()),
        "curve": open_set.threshold_curve(answers),
    }
    if values["rejected"] == values["open_accuracy"] == 0:
        logging.getLogger(__name__).info(
            "%s: no score is below the threshold %g, so nothing is rejected", run.label, threshold
        )
    return OpenSetResult(run.label, values)


def _answers(
    run: "TrainedRun", opened: "ImageSet", arguments: Arguments
) -> tuple["Answers", float]:
    from experiments.loaded_runs import in_chunks
    from jaxlt.evaluation import open_set

    predictor, train = run.predictor(), run.source.train
    closed, tested = run.tested
    shown = run.usable(closed, tested)
    unknown = run.usable(opened, np.arange(len(opened.labels)))

    def of_both(function: Any) -> np.ndarray:
        sets = ((closed, shown), (opened, unknown))
        return np.concatenate([in_chunks(lambda x: function(predictor.fit(x)), *s) for s in sets])

    logits = of_both(predictor.logits)
    threshold = _SOFTMAX_THRESHOLD if arguments.threshold is None else arguments.threshold
    if arguments.metric == "softmax":
        scores = open_set.softmax_scores(logits)
    else:
        indices = run.usable(train, run.split.indices)
        features = in_chunks(predictor.features, train, indices)
        prototypes = open_set.Prototypes(features, train.labels[indices], run.num_classes)
        scores = prototypes.scores(of_both(predictor.features))
        if arguments.threshold is None:
            trained = prototypes.scores(features)
            threshold = open_set.accepting_threshold(trained, _ACCEPTED_SHARE)
    labels = np.concatenate([closed.labels[shown], np.full(len(unknown), open_set.REJECTED)])
    return open_set.Answers(labels, logits.argmax(axis=1), scores), threshold


def _write(place: Path, results: list[OpenSetResult], arguments: Arguments) -> None:
    from experiments.loaded_runs import write_values

    (place / "table.md").write_text(f"{format_table(results)}\n\n{_NOTE}\n")
    values = {"open": arguments.open, "metric": arguments.metric, "runs": dict(results)}
    write_values(place / "open_set.json", values)
    _draw(results, place / "open_set.png")


def _draw(results: list[OpenSetResult], path: Path) -> None:
    """Draws F-measures by threshold, and what rejecting costs, a line a run."""
    with picture(path, 1, 3, (14, 4.5)) as (figure, panels):
        oltr, balms, trade = panels[0]
        styles = itertools.product(_LINES, COLORS)
        for (label, values), (line, color) in zip(results, itertools.cycle(styles), strict=False):
            curve = values["curve"]
            style = {"linestyle": line, "color": color, "label": label}
            oltr.plot(curve["threshold"], curve["f_oltr"], **style)
            balms.plot(curve["threshold"], curve["f_balms"], **style)
            trade.plot(100 * curve["open_accuracy"], 100 * curve["accuracy"], **style)
        for axes, name in ((oltr, "oltr"), (balms, "balms")):
            axes.set(xlabel="threshold on the score", ylabel=f"F-measure ({name})")
        trade.set_xlabel("open images rejected (%)")
        trade.set_ylabel("closed images classified correctly (%)")
        for axes in panels[0]:
            axes.grid(alpha=0.3)
        legend_beside(figure, trade)


if __name__ == "__main__":
    command_line.run(main)
