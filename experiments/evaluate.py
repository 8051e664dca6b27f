"""A run on any labeled images, class by class: `python -m experiments.evaluate RUN`."""

import dataclasses
import io
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from experiments import command_line
from experiments.flags import POSITIONAL

if TYPE_CHECKING:
    import numpy as np

    from experiments.labeled_images import LabeledImages
    from jaxlt.evaluation import Evaluated, Predictor

_MOST_LINES = 100


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    run: Annotated[tuple[str, ...], POSITIONAL, "RUN"] = ()
    """A run's directory, RUN or RUN/checkpoints/STEP."""
    dataset: str | None = None
    """Data set such as folder:DIR, whose classes are the run's by name, in any order; none for the
    images that the run was evaluated on."""
    part: Literal["test", "val", "train"] | None = None
    """Which images of the data set; none for the first of test, val and train that has some. Of the
    run's own data, wherever they lie now, none takes those that the run was evaluated on."""
    skip_unknown: bool = False
    """Leave out images of classes that the run does not know; without it they are refused."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read; without it they are refused."""
    csv: Path | None = None
    """File of the table of classes, in percent."""
    checkpoint: str | None = None
    """Step of the checkpoint to take; none for the newest."""
    best: bool = False
    """Take the checkpoint of best balanced accuracy among those that are kept."""


def main() -> None:
    """Parses the flags, evaluates the run, prints the tables."""
    arguments = command_line.parse(
        Arguments,
        "experiments.evaluate",
        "Evaluates a run on any labeled images, class by class.",
    )
    from experiments.image_paths import check_is_no_image
    from experiments.presentation import csv_writer, markdown_table
    from experiments.served_run import only_run, served
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.errors import counted
    from jaxlt.files.whole_file import check_can_be_written, whole_file
    from jaxlt.recipes.recorded import recorded_recipe
    from jaxlt.runs.reader import RunReader

    run, step = only_run(arguments.run, arguments.checkpoint)
    if arguments.csv is not None:
        check_can_be_written(arguments.csv, "csv")
        check_is_no_image(arguments.csv, "csv")
    enable_compilation_cache()
    found = served(run, step, best=arguments.best)
    predictor, reader = found.predictor(), RunReader(found.path)
    counts, groups = reader.class_counts, recorded_recipe(reader).evaluation.shot_groups
    evaluated = _evaluated(predictor, _labeled(arguments, found.path, predictor))
    group_of = {
        label: name
        for name, mask in groups.assign(counts).items()
        for label in mask.nonzero()[0].tolist()
    }
    header, rows = _classes(evaluated, predictor.class_names, counts, group_of)
    shown = rows[:_MOST_LINES]
    print(markdown_table(header, shown))
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more classes, which --csv FILE has")
    print(f"\n{markdown_table(*_whole(evaluated, counts, groups), left=0)}")
    if arguments.csv is not None:
        text = io.StringIO(newline="")
        csv_writer(text).writerows([header, *rows])
        with whole_file(arguments.csv, "csv") as file:
            file.write(text.getvalue().encode(errors="surrogateescape"))
        written = counted(len(rows), "class")
        logging.getLogger(__name__).info("%s written to %s", written, arguments.csv)
    place = shlex.quote(str(found.path))
    command_line.say_next(
        f"python3 -m experiments.report {place}", f"python3 -m experiments.export {place}"
    )


def _labeled(arguments: Arguments, run: Path, predictor: "Predictor") -> "LabeledImages":
    from experiments.labeled_images import LabeledImages, labeled_images
    from jaxlt.errors import UsageError
    from jaxlt.recipes.recorded import TrainedRun

    trained = TrainedRun(run)
    if arguments.dataset is not None:
        return labeled_images(
            arguments.dataset,
            predictor,
            trained,
            part=arguments.part,
            skip_unknown=arguments.skip_unknown,
            skip_unreadable=arguments.skip_unreadable,
        )
    for name in ("part", "skip_unknown", "skip_unreadable"):
        if getattr(arguments, name):
            raise UsageError(f"{name} must go with dataset, got it alone")
    images, indices = trained.evaluated
    indices = trained.usable(images, indices)
    return LabeledImages(images, indices, images.labels[indices])


def _evaluated(predictor: "Predictor", labeled: "LabeledImages") -> "Evaluated":
    import jax.numpy as jnp
    import numpy as np

    from experiments.analyzed_run import ticking
    from experiments.loaded_runs import chunks
    from jaxlt.evaluation import evaluate

    logits = []
    with ticking("evaluate", len(labeled.indices), "image") as tick:
        for chunk in chunks(labeled.indices):
            logits.append(predictor.logits(predictor.fit(labeled.images.load(chunk))))
            tick(len(chunk))
    batch = np.concatenate(logits), labeled.labels
    return evaluate(jnp.asarray, [batch], len(predictor.class_names))


def _classes(
    evaluated: "Evaluated",
    names: Sequence[str],
    counts: "np.ndarray",
    group_of: dict[int, str],
) -> tuple[list[str], list[list[Any]]]:
    """Returns a table of the classes that have images, the largest in training first."""
    header = ["class", "group", "trained on", "images", "correct (%)", "most often taken for"]
    rows = []
    for label in sorted(range(len(names)), key=lambda label: (-counts[label], label)):
        taken = evaluated.confusion[label].copy()
        if total := int(taken.sum()):
            taken[label] = 0
            wrong = names[int(taken.argmax())] if taken.any() else "-"
            correct = f"{100 * evaluated.per_class[label]:.1f}"
            rows.append([names[label], group_of[label], int(counts[label]), total, correct, wrong])
    return header, rows


def _whole(
    evaluated: "Evaluated", counts: "np.ndarray", groups: Any
) -> tuple[list[str], list[list[str]]]:
    from experiments.presentation import MEASURES, mean_and_deviation, percent
    from jaxlt.evaluation import group_accuracy

    values = group_accuracy(evaluated.per_class, counts, groups)
    values["accuracy"] = evaluated.accuracy
    header = ["images", *MEASURES.values(), "mean of classes", "ECE", "loss (nats)"]
    shares = [*(values[name] for name in MEASURES), evaluated.balanced_accuracy]
    shares.append(evaluated.calibration.ece)
    shown = [mean_and_deviation([percent(share)], 1) for share in shares]
    return header, [[str(int(evaluated.confusion.sum())), *shown, f"{evaluated.loss:.3f}"]]


if __name__ == "__main__":
    command_line.run(main)
