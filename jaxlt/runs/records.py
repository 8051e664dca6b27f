"""What a run records, as typed structures: evaluations, measurements, result, split."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from jaxlt.errors import UsageError
from jaxlt.files.typed_json import Count, Number

GROUPS = ("many", "medium", "few")
PLACES = ("correct", *GROUPS)
_UNKNOWN = Number("nan")


class RecordTime(NamedTuple):
    """When a record was made: stages are numbered from 0, steps over all of them."""

    stage: int
    step: int


class GroupShares(msgspec.Struct, frozen=True):
    """Where the images of a shot group are classified, see `jaxlt.evaluation.group_confusion`."""

    correct: Number
    many: Number
    medium: Number
    few: Number


class RecordedConfusion(msgspec.Struct, frozen=True):
    """The shares of each shot group."""

    many: GroupShares
    medium: GroupShares
    few: GroupShares


class RecordedBins(msgspec.Struct, frozen=True):
    """Images by confidence, see `jaxlt.evaluation.ConfidenceBins`."""

    counts: tuple[Count, ...]
    confidence_sums: tuple[Number, ...]
    correct: tuple[Count, ...]

    def __post_init__(self):
        lengths = [len(self.counts), len(self.confidence_sums), len(self.correct)]
        if len(set(lengths)) > 1 or not sum(self.counts):
            raise UsageError(
                "confidence_bins must have as many counts as confidence_sums and correct, and "
                f"images in them, got {lengths} of {sum(self.counts)} images"
            )


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `metrics.jsonl`."""

    step: Count
    stage: Count = 0

    @property
    def time(self) -> RecordTime:
        """When it was made."""
        return RecordTime(self.stage, self.step)


class EvaluationRecord(_Record, frozen=True, kw_only=True):
    """One evaluation of C classes.

    Accuracies are in [0, 1], losses in nats; NaN is what was not recorded.
    """

    accuracy: Number
    balanced_accuracy: Number
    many: Number
    medium: Number
    few: Number
    per_class: tuple[Number, ...]
    train_loss: Number = _UNKNOWN
    test_loss: Number = _UNKNOWN
    ece: Number = _UNKNOWN
    group_confusion: RecordedConfusion | None = None
    confidence_bins: RecordedBins | None = None


class ResultRecord(EvaluationRecord, frozen=True, kw_only=True):
    """A run's last evaluation: `result.json`."""

    seconds: Number
    """Of training."""
    code: tuple[str, ...] = ()
    """Versions of the code that trained it, in the order of first use."""


class MeasuredNumbers(msgspec.Struct, frozen=True):
    """What was measured at one step; NaN is what a batch could not tell."""

    sharpness: dict[str, Number] = {}
    cosine: dict[str, Number] = {}
    batches_without: dict[str, Number] = {}
    perturbation_norm: tuple[Number, ...] = ()
    """One number a group of the method."""


class MeasurementRecord(_Record, frozen=True, kw_only=True):
    """One measurement."""

    measurement: MeasuredNumbers


class SplitRecord(msgspec.Struct, frozen=True):
    """What of `split.json` can be understood without the data set."""

    class_counts: Annotated[tuple[Annotated[int, Meta(ge=1, lt=2**53)], ...], Meta(min_length=1)]
    """Training images of each class."""


class SeedRecord(msgspec.Struct, frozen=True):
    """What of `recipe.json` is not the recipe."""

    seed: Count
