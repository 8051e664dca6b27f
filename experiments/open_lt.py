"""Open-set evaluation of finished runs: `python -m experiments.open_lt --checkpoint RUN...`."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tabulate import tabulate

from experiments import command_line
from experiments.presentation import MEASURES, mean_and_deviation, percent
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    from jaxlt.data import ImageSet, Resize, Source
    from jaxlt.evaluation.open_set import Answers
    from jaxlt.recipes.trained_run import TrainedRun

_SOFTMAX_THRESHOLD = 0.1
_ACCEPTED_SHARE = 0.95
_SHARES = {**MEASURES, "open_accuracy": "open"}
_NUMBERS = {
    "f_oltr": "F (oltr)",
    "f_balms": "F (balms)",
    "auroc": "AUROC",
    "threshold": "threshold",
}
_NOTE = (
    "many, medium, few and all are accuracies on the closed set in percent, rejected images being "
    "wrong; open is the percentage of open images that are rejected."
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs; one row of the table each."""
    open: str | None = None
    """Source of the open set, of whose classes the runs know none: its open list if it has one,
    otherwise its test images. digits, idx:DIR, tfds:NAME, folder:DIR, list:ROOT,LISTS or
    tfds:NAME,LISTS. Images are converted to a run's size and channels. None for the open list of a
    run's own source."""
    metric: Literal["softmax", "prototype"] = "softmax"
    """Score by which images are rejected. softmax: largest probability (OLTR). prototype: largest
    cosine similarity to the mean of a class's training features (CC-SAM)."""
    threshold: float | None = None
    """Images of lower scores are rejected. None for OLTR's 0.1 with softmax, and with prototype for
    that at which 95% of a run's training images are accepted."""
    output: Path | None = None
    """Directory of table.md, open_set.json and open_set.png; None for RUN/open_set, for each run
    its own."""


@dataclasses.dataclass(frozen=True)
class OpenSetResult:
    """What one run did.

    Attributes:
        label: of the run.
        measures: see `open_set_measures`, with `many`, `medium`, `few` and `per_class`.
        curve: see `threshold_curve`.
    """

    label: str
    measures: dict[str, Any]
    curve: Mapping[str, np.ndarray]


def main() -> None:
    """Parses the flags, evaluates each run, prints the table and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.open_lt",
        "Evaluates finished runs on their test set together with images of unknown classes.",
    )
    from experiments.loaded_runs import load_runs
    from experiments.written_report import destinations, write_reports
    from jaxlt.devices.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    runs = load_runs(arguments.checkpoint)
    places = destinations(runs, arguments.output, "open_set")
    results = [_evaluate(run, _open_images(run, arguments.open), arguments) for run in runs]
    write_reports(places, results, lambda place, shown: _write(place, shown, arguments))
    print(f"\n{format_table(results)}\n\n{_NOTE}\n")
    logging.getLogger(__name__).info("written to %s", ", ".join(map(str, places)))


def format_table(results: Sequence[OpenSetResult]) -> str:
    """Renders one row a run as Markdown."""
    rows = [
        [result.label]
        + [mean_and_deviation([percent(result.measures[name])], 2) for name in _SHARES]
        + [mean_and_deviation([result.measures[name]], 3) for name in _NUMBERS]
        for result in results
    ]
    headers = ["run", *_SHARES.values(), *_NUMBERS.values()]
    alignment = ("left", *("right" for _ in headers[1:]))
    return tabulate(rows, headers, tablefmt="github", colalign=alignment, disable_numparse=True)


def _open_images(run: "TrainedRun", spec: str | None) -> "ImageSet":
    if spec is None:
        if run.source.open is None:
            raise UsageError(
                f"open must name a source, that of run {run.path} has no open list; it may be the "
                "run's own with one more list, list:ROOT,TRAIN,VAL,TEST,OPEN"
            )
        return run.source.open
    # Read as the run reads its own: otherwise how images are cut would tell open from closed.
    source = _load(spec, max(run.predictor().image_shape[:2]), run.predictor().resize)
    if source.open is not None:
        return source.open
    if spec == run.source.name:
        raise UsageError(f"open must be another source than run {run.path}'s own, {spec}")
    if len(source.test.labels) == 0:
        raise UsageError(f"open must have a list of test images or an open one, {spec} has neither")
    return source.test


@functools.cache
def _load(spec: str, image_size: int, resize: "Resize") -> "Source":
    """Loads an open source once for all runs of one image size."""
    from jaxlt.data import is_of_files, load_source

    resize = resize if is_of_files(spec) else "stretch"
    # Its training images are not asked for, so one that is unreadable does no harm.
    return load_source(spec, image_size=image_size, resize=resize, unreadable="skip")


def _evaluate(run: "TrainedRun", opened: "ImageSet", arguments: Arguments) -> OpenSetResult:
    from jaxlt.evaluation.open_set import (
        open_set_measures,
        per_class_accuracy,
        threshold_curve,
    )

    answers, threshold = _answers(run, opened, arguments)
    curve = threshold_curve(answers)
    per_class = per_class_accuracy(answers.labels, answers.decided(threshold), run.num_classes)
    measures = {
        **open_set_measures(answers, threshold),
        **run.by_group(per_class),
        "threshold": threshold,
        "per_class": per_class.tolist(),
        "closed_images": int((answers.labels >= 0).sum()),
        "open_images": int((answers.labels < 0).sum()),
    }
    if measures["rejected"] == measures["open_accuracy"] == 0:
        logging.getLogger(__name__).info(
            "%s: no score is below the threshold %g, so nothing is rejected", run.label, threshold
        )
    return OpenSetResult(run.label, measures, curve)


def _answers(
    run: "TrainedRun", opened: "ImageSet", arguments: Arguments
) -> tuple["Answers", float]:
    """Returns the answers for the closed and the open test images, and the threshold."""
    from experiments.loaded_runs import in_chunks
    from jaxlt.evaluation.open_set import REJECTED, Answers, accepting_threshold, softmax_scores

    closed = run.test_images
    sets = [
        (image_set, run.usable(image_set, np.arange(len(image_set.labels))))
        for image_set in (closed, opened)
    ]

    def of_both(function: Any) -> np.ndarray:
        fitted = [
            in_chunks(lambda images: function(run.predictor().fit(images)), *images)
            for images in sets
        ]
        return np.concatenate(fitted)

    logits = of_both(run.predictor().logits)
    threshold = _SOFTMAX_THRESHOLD if arguments.threshold is None else arguments.threshold
    if arguments.metric == "softmax":
        scores = softmax_scores(logits)
    else:
        prototypes, trained = _prototypes(run)
        scores = prototypes.scores(of_both(run.predictor().features))
        if arguments.threshold is None:
            threshold = accepting_threshold(prototypes.scores(trained), _ACCEPTED_SHARE)
    (_, shown), (_, unknown) = sets
    labels = np.concatenate([closed.labels[shown], np.full(len(unknown), REJECTED)])
    return Answers(labels, logits.argmax(axis=1), scores), threshold


def _prototypes(run: "TrainedRun") -> tuple[Any, np.ndarray]:
    """Returns the prototypes and the features of the training images that they are means of."""
    from experiments.loaded_runs import in_chunks
    from jaxlt.evaluation.open_set import Prototypes

    images = run.source.train
    indices = run.usable(images, run.split.indices)
    features = in_chunks(run.predictor().features, images, indices)
    return Prototypes(features, images.labels[indices], run.num_classes), features


def _write(place: Path, results: list[OpenSetResult], arguments: Arguments) -> None:
    from experiments.open_set_picture import draw
    from experiments.written_report import write_values

    (place / "table.md").write_text(f"{format_table(results)}\n\n{_NOTE}\n")
    runs = {
        result.label: {
            **result.measures,
            "curve": {name: values.tolist() for name, values in result.curve.items()},
        }
        for result in results
    }
    values = {"open": arguments.open, "metric": arguments.metric, "runs": runs}
    write_values(place / "open_set.json", values)
    draw({result.label: result.curve for result in results}, place / "open_set.png")


if __name__ == "__main__":
    command_line.run(main)
