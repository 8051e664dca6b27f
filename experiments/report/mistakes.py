"""What networks take for what: confusion matrices, and the mistakes that they are surest of."""

import io
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.loaded_runs import chunks
from experiments.presentation import printable
from experiments.report.figures import data_uri, draw, shortened
from experiments.report.page import Picture, Section, Thumbnail
from experiments.report.rows import LearnedClasses, SeedsRow
from experiments.report.summary import best_first, comparable
from jaxlt.errors import UsageError, first_line
from jaxlt.recipes.methods import SGD
from jaxlt.recipes.recorded import TrainedRun

if TYPE_CHECKING:
    from jaxlt.data import ImageSet

_logger = logging.getLogger(__name__)

MOST_CLASSES = 24
"""Of more classes a matrix shows groups, of neighbors by size."""
_GROUPS = 20
_MOST_WRITTEN = 12  # lines of a matrix whose cells have room for numbers
_NAME_WIDTH = 14  # letters
_MOST_MISTAKES = 24
_SIDE = 96  # pixels of a thumbnail
_SHARP = 32  # pixels up to which a lossless file is the smaller one
_UNLIKE = 0.01  # a difference of accuracies that other rounding does not explain
_NAMED_CONFUSIONS = 3


class Predicted(NamedTuple):
    """What a run's network says of the n images that the run was evaluated on."""

    images: "ImageSet"
    numbers: np.ndarray
    """(n,) of the images in their set."""
    labels: np.ndarray
    """(n,) true classes."""
    classes: np.ndarray
    """(n,) likeliest classes."""
    confidences: np.ndarray
    """(n,) softmax of the likeliest classes, in [0, 1]."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return float((self.labels == self.classes).mean())


def mistakes(rows: Sequence[SeedsRow], *, gallery: bool = True) -> Section:
    """Shows confusion matrices of the best rows and of SGD, and the mistakes of the best.

    Of each row the first run is shown. Where its network or its images are gone, a line says so.
    """
    parts = []
    for learned, images, members in comparable(rows):
        bests = [ranked[0] for name in ("accuracy", "few") if (ranked := best_first(members, name))]
        reference = [row for row in members if isinstance(row.recipe.method, SGD)][:1]
        best = bests[0] if bests else members[0]
        chosen = dict.fromkeys([*reference, *bests, best])
        title = f"{learned.dataset}, {images}"
        parts += _parts(title, [row for row in members if row in chosen], best, gallery)
    text = (
        "Of the row that is best on all images, the one that is best on few-shot classes, and SGD, "
        "the first run each."
    )
    return Section("Mistakes", [text], subsections=parts)


def _parts(
    title: str, rows: Sequence[SeedsRow], best: SeedsRow, gallery: bool
) -> Iterator[Section]:
    """Yields the matrices of rows, and the mistakes of the best among them."""
    notes, pictures, shown = [], [], []
    for row in rows:
        run = row.runs[0]
        try:
            found = predicted(run)
            thumbnails = _gallery(found, row.learned) if gallery and row is best else []
        except UsageError as error:
            notes.append(f"Mistakes of {row.label} are not shown: {first_line(error)}.")
            _logger.warning("%s", notes[-1])
            continue
        pictures.append(draw_matrix(row.label, found, row.learned, alone=len(rows) == 1))
        notes += _unlike(row, found)
        if thumbnails:
            wrong = int((found.labels != found.classes).sum())
            text = (
                f"Of {len(found.labels):,} images {wrong:,} are mistaken by the run of seed "
                f"{run.files.seed}, by these with the most confidence. Some may be labeled wrong."
            )
            shown = [Section(f"Surest mistakes of {row.label}", [text], gallery=thumbnails)]
    yield Section(title, notes, pictures=pictures)
    yield from shown


def _unlike(row: SeedsRow, found: Predicted) -> list[str]:
    recorded = row.runs[0].files.result.accuracy
    if not abs(found.accuracy - recorded) > _UNLIKE:
        return []
    text = (
        f"{row.label} is right for {100 * found.accuracy:.1f} % of these images, its run recorded "
        f"{100 * recorded:.1f} %: the images are others now, or were evaluated in several crops."
    )
    _logger.warning("%s", text)
    return [text]


def predicted(run: TrainedRun) -> Predicted:
    """Classifies the images that a run was evaluated on, some at a time.

    UsageError says that its network or its images are not here.
    """
    _check_at_hand(run)
    images, numbers = run.evaluated
    numbers = run.usable(images, numbers)
    if run.source.num_classes != run.num_classes or not len(numbers):
        raise UsageError(
            f"images of {run.source.name} must be of the {run.num_classes} classes of run "
            f"{run.path}, got {len(numbers)} of {run.source.num_classes}"
        )
    _logger.info("%s: classifying %d images for the report", run.path, len(numbers))
    predictor = run.predictor()
    classes, confidences, size = [], [], 0
    for chunk in chunks(numbers):
        pixels = images.load(chunk)
        # The last chunk is filled up: another size would be compiled anew.
        size = max(size, len(chunk))
        filled = np.zeros((size, *pixels.shape[1:]), np.uint8)
        filled[: len(chunk)] = pixels
        logits = predictor.logits(filled)[: len(chunk)].astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        classes.append(logits.argmax(axis=1))
        confidences.append(1 / exponentials.sum(axis=1))
    joined = (np.concatenate(classes), np.concatenate(confidences))
    return Predicted(images, numbers, np.asarray(images.labels)[numbers], *joined)


def _check_at_hand(run: TrainedRun) -> None:
    """Raises UsageError where the network is gone, or the images would have to be downloaded."""
    if not run.files.saved_steps():
        raise UsageError(f"run {run.path} has no checkpoint")
    kind, _, place = (run.dataset or run.recorded.data.name).partition(":")
    if kind == "tfds":
        from jaxlt.data.sources.tfds import make_builder

        if not make_builder(place.partition(",")[0]).is_prepared():
            raise UsageError(
                f"the images of tfds:{place} are not on this machine; give where they are by "
                "--dataset SOURCE"
            )


def groups_of(class_counts: Sequence[int]) -> list[np.ndarray]:
    """Returns the classes from head to tail, each by itself or neighbors by size in groups."""
    order = np.argsort(-np.array(class_counts), kind="stable")
    return np.array_split(order, len(order) if len(order) <= MOST_CLASSES else _GROUPS)


def folded(labels: np.ndarray, classes: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Returns where images of each group are classified: shares (G, G), by true and other group.

    A share is the mean over the classes of the true group, of their images that are taken for any
    class of the other; NaN without images.

    Args:
        labels: (n,) true classes.
        classes: (n,) those they are taken for.
        groups: the classes of each.
    """
    group_of = np.zeros(sum(map(len, groups)), int)
    for number, members in enumerate(groups):
        group_of[members] = number
    counts = np.zeros((len(group_of), len(groups)))
    np.add.at(counts, (labels, group_of[classes]), 1)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    known = [shares[members][~np.isnan(shares[members]).any(axis=1)] for members in groups]
    empty = np.full(len(groups), np.nan)
    return np.stack([of_group.mean(axis=0) if len(of_group) else empty for of_group in known])


def commonest(found: Predicted, learned: LearnedClasses) -> str:
    """Says which class is most often taken for which."""
    wrong = found.labels != found.classes
    # No table of all pairs, of which thousands of classes have too many.
    pairs = np.stack([found.labels[wrong], found.classes[wrong]], axis=1)
    if not len(pairs):
        return "Nothing is mistaken"
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    names = learned.class_names
    texts = [
        f"{names[kinds[place, 0]]} for {names[kinds[place, 1]]} ({counts[place]} of "
        f"{(found.labels == kinds[place, 0]).sum()})"
        for place in np.argsort(-counts, kind="stable")[:_NAMED_CONFUSIONS]
    ]
    return f"Most often mistaken: {', '.join(texts)}"


def draw_matrix(
    label: str, found: Predicted, learned: LearnedClasses, *, alone: bool = False
) -> Picture:
    """Draws the confusion matrix of a row, in percent of the images of a line."""
    groups = groups_of(learned.class_counts)
    shares = 100 * folded(found.labels, found.classes, groups)
    names = [_name(members, learned) for members in groups]
    single = len(groups) == len(learned.class_counts)

    def onto(axes: Any) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest", aspect="auto")
        size = 9 if len(names) <= _MOST_WRITTEN else 7
        # Anchored at their ends, names reach the matrix in whatever font.
        upright = {"rotation": 90, "ha": "right", "va": "center", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, fontsize=size, **upright)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        what = "class" if single else "group of classes, by images in training"
        axes.set(xlabel=f"taken for {what}", ylabel=f"true {what}")
        axes.grid(visible=False)
        if len(names) <= _MOST_WRITTEN:
            for (line, column), share in np.ndenumerate(shares):
                if share >= 0.5:
                    ink = "white" if share > 55 else "black"
                    center = {"ha": "center", "va": "center"}
                    axes.text(column, line, f"{share:.0f}", color=ink, fontsize=8, **center)

    words = commonest(found, learned)
    order = "Classes" if single else f"{len(learned.class_counts)} classes in {len(names)} groups"
    reading = (
        f"{order}, from head to tail: the darker the diagonal the better; a dark column is what "
        f"others are taken for. {words}."
    )
    alternative = f"Confusion matrix of {label} in percent of each line. {words}."
    title = f"Confusion matrix: {label}"
    return draw(title, alternative, onto, reading, height=4.6, alone=alone)


def _name(members: np.ndarray, learned: LearnedClasses) -> str:
    if len(learned.class_counts) <= MOST_CLASSES:
        return shortened(learned.class_names[members[0]], _NAME_WIDTH) or "?"
    sizes = [learned.class_counts[one] for one in (members[0], members[-1])]
    return "\N{EN DASH}".join(map(str, dict.fromkeys(sizes)))


def surest_mistakes(found: Predicted, number: int = _MOST_MISTAKES) -> np.ndarray:
    """Returns the places of the wrong images of highest confidence, the highest first."""
    wrong = np.flatnonzero(found.labels != found.classes)
    return wrong[np.argsort(-found.confidences[wrong], kind="stable")][:number]


def _gallery(found: Predicted, learned: LearnedClasses) -> list[Thumbnail]:
    places = surest_mistakes(found)
    if not len(places):
        return []
    pixels = found.images.load(found.numbers[places])
    return [
        Thumbnail(
            thumbnail(image),
            printable("/".join(found.images.name(int(found.numbers[place])).split("/")[-2:])),
            f"true {learned.class_names[found.labels[place]]}",
            f"taken for {learned.class_names[found.classes[place]]}, "
            f"{100 * found.confidences[place]:.0f}\N{NO-BREAK SPACE}%",
        )
        for place, image in zip(places, pixels, strict=True)
    ]


def thumbnail(pixels: np.ndarray) -> str:
    """Returns the address of a small file of an image, uint8 (H, W, C) of any channels."""
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image.thumbnail((_SIDE, _SIDE))
    kind = "PNG" if max(image.size) <= _SHARP else "JPEG"
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    return data_uri(file.getvalue(), f"image/{kind.lower()}")
