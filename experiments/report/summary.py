"""What a report says first: which row is best, and whether that is more than chance."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report.page import Section
from experiments.report.rows import LearnedClasses, SeedsRow, by_classes, images_of
from jaxlt.recipes.methods import SGD

MEASURES = {
    "few": "few-shot classes",
    "accuracy": "all images",
    "balanced_accuracy": "all classes, each of which counts the same",
}
"""What a summary compares rows by."""
_RESAMPLES = 10_000
_SEED = 0
# Of fewer differences of one sign chance makes more than one time in twenty.
_ENOUGH_SEEDS = 6
_ALIKE = 5e-3  # a difference of two accuracies that is not worth a sentence


class Interval(NamedTuple):
    """A mean of n differences, and the interval that holds 95 % of its bootstrapped means."""

    mean: float
    low: float
    high: float
    number: int


def bootstrap(differences: np.ndarray) -> Interval:
    """Returns the percentile interval of the mean of (n,) numbers, of the same draws each time."""
    number = len(differences)
    draws = np.random.default_rng(_SEED).integers(number, size=(_RESAMPLES, number))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high), number)


def paired_differences(row: SeedsRow, other: SeedsRow, measure: str) -> np.ndarray:
    """Returns how much better a row is than another, by the seeds (n,) that both have."""
    own, its = _by_seed(row, measure), _by_seed(other, measure)
    return np.array([own[seed] - its[seed] for seed in sorted(own.keys() & its.keys())])


def _by_seed(row: SeedsRow, measure: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run, value in zip(row.runs, row.final(measure), strict=True):
        values.setdefault(run.files.seed, []).append(value)
    return {seed: float(np.mean(of_seed)) for seed, of_seed in values.items()}


def comparable(rows: Sequence[SeedsRow]) -> Iterator[tuple[LearnedClasses, str, list[SeedsRow]]]:
    """Yields rows that learned the same and were evaluated on the same kind of images."""
    for learned, members in by_classes(rows):
        for images in dict.fromkeys(images_of([row]) for row in members):
            yield learned, images, [row for row in members if images_of([row]) == images]


def best_first(rows: Sequence[SeedsRow], measure: str) -> list[SeedsRow]:
    """Returns the rows that know a measure, the best by its mean first, the earlier of equals."""
    known = [row for row in rows if np.isfinite(row.final(measure)).all()]
    return sorted(known, key=lambda row: -np.mean(row.final(measure)))


def all_sentences(rows: Sequence[SeedsRow]) -> list[str]:
    """Returns the paragraphs of `summary`, each led by its title where there are several."""
    section = summary(rows)
    titled = [f"{part.title}: {text}" for part in section.subsections for text in part.paragraphs]
    return [*section.paragraphs, *titled]


def summary(rows: Sequence[SeedsRow]) -> Section:
    """Says for rows that can be compared which is best on few-shot classes and on all."""
    parts = []
    for learned, images, members in comparable(rows):
        sentences = summarized(members)
        if len(members) > 1:
            sentences.append(_caution(members, images))
        parts.append(Section(f"{learned.dataset}, {images}", sentences))
    if len(parts) == 1:
        return Section("Summary", parts[0].paragraphs)
    return Section("Summary", subsections=parts)


def summarized(rows: Sequence[SeedsRow]) -> list[str]:
    """Returns a sentence for each measure of rows that can be compared, those of `summary`."""
    balanced = [row.final("balanced_accuracy") for row in rows]
    unlike = any(
        np.nanmax(np.abs(np.subtract(row.final("accuracy"), own)), initial=0) > _ALIKE
        for row, own in zip(rows, balanced, strict=True)
    )
    sentences = []
    for measure, what in MEASURES.items():
        ranked = best_first(rows, measure)
        if measure == "balanced_accuracy" and not unlike:
            continue
        if not ranked:
            sentences.append(f"Nothing is known of {what}: no row has an accuracy on them.")
        elif len(rows) == 1:
            sentences.append(f"{_mean(ranked[0], measure)} on {what}.")
        else:
            sentences.append(_best(ranked, measure, what))
    if len(rows) == 1:
        sentences.append("There is no other row to compare it with.")
    return sentences


def _mean(row: SeedsRow, measure: str) -> str:
    return f"{row.label}: {100 * np.mean(row.final(measure)):.1f} %"


def _best(ranked: Sequence[SeedsRow], measure: str, what: str) -> str:
    """Says which row is best, compared with SGD and with the next."""
    best, *others = ranked
    text = f"{best.label} is best on {what}: {100 * np.mean(best.final(measure)):.1f} %"
    if not others:
        return f"{text}; no other row has a number there."
    reference = next((row for row in others if isinstance(row.recipe.method, SGD)), None)
    compared = [row for row in (reference, others[0]) if row is not None]
    parts = [_compared(best, row, measure) for row in dict.fromkeys(compared)]
    return f"{text}, {'; and '.join(parts)}."


def _compared(best: SeedsRow, row: SeedsRow, measure: str) -> str:
    differences = paired_differences(best, row, measure)
    gap = 100 * (np.mean(best.final(measure)) - np.mean(row.final(measure)))
    if len(differences) < 2:
        seeds = "one seed" if len(differences) else "no seed"
        return (
            f"{gap:.1f} points over {row.label}, with {seeds} that both have, from which nothing "
            "follows about chance"
        )
    mean, low, high, number = bootstrap(100 * differences)
    return (
        f"{mean:.1f} points over {row.label} (95 % interval {low:.1f} to {high:.1f} over {number} "
        f"seeds: {_verdict(low, number)})"
    )


def _verdict(low: float, number: int) -> str:
    if low <= 0:
        return "it may be chance"
    return "more than chance" if number >= _ENOUGH_SEEDS else "too few to rule out chance"


def _caution(rows: Sequence[SeedsRow], images: str) -> str:
    text = (
        f"Accuracies are means over seeds on {images}. Differences are paired by seed, their "
        f"intervals the percentiles of {_RESAMPLES:,} bootstrapped means."
    )
    fewest = min(len(row.runs) for row in rows)
    if 1 < fewest < _ENOUGH_SEEDS:
        text += (
            f" {fewest} differences have the same sign by chance alone once in {2 ** (fewest - 1)} "
            f"times, so that {_ENOUGH_SEEDS} seeds or more are needed to tell."
        )
    if len(rows) > 2:
        text += " The best of several rows is picked by the same numbers, which flatters it."
    if images == "test images":
        text += " Choose settings on validation images, not by these numbers."
    return text
