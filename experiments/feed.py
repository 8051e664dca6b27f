"""The images of an experiment, as training and evaluation take them."""

import functools
import math
from collections.abc import Iterator
from typing import Any

from experiments.execution import PipelineKind
from experiments.recipe import Recipe
from jaxlt.data import (
    Batch,
    DeviceEvaluation,
    DevicePipeline,
    InstanceBalanced,
    Pipeline,
    Source,
    Split,
    TfDataPipeline,
    evaluation_batches,
)

_EVALUATION_BATCH = 500
# Number of the image, row and column of the crop, and whether it is mirrored.
_BYTES_OF_DRAWS = 13


class Feed:
    """Training pipelines of any seed, and test batches; made on the host or on the device.

    Args:
        recipe: for batch size and augmentation.
        source: training and test images.
        split: which training images.
        kind: who makes the batches.
    """

    def __init__(self, recipe: Recipe, source: Source, split: Split, kind: PipelineKind):
        self._source, self._split, self._kind = source, split, kind
        self._statistics: dict[str, Any] = {"mean": source.mean, "std": source.std}
        self._batch: dict[str, Any] = {
            "batch_size": recipe.batch_size,
            "augmentation": recipe.augmentation,
        }

    @property
    def bytes_per_step(self) -> int:
        """What the host sends to the device for one step of one run."""
        pixels = 4 * math.prod(self._source.image_shape)
        return self._batch["batch_size"] * (_BYTES_OF_DRAWS if self._kind == "device" else pixels)

    def pipeline(self, seed: int) -> Pipeline:
        """Returns the training data of a seed; those of the device share one copy of the images."""
        if self._kind == "device":
            return self._resident.with_seed(seed, self._sampler(seed))
        return self._make(TfDataPipeline, seed)

    def evaluation_batches(self) -> Iterator[Batch]:
        """Yields the test images."""
        if self._kind == "device":
            return self._resident_test.batches()
        return evaluation_batches(
            self._source.test, batch_size=_EVALUATION_BATCH, **self._statistics
        )

    @functools.cached_property
    def _resident(self) -> DevicePipeline:
        return self._make(DevicePipeline, seed=0)

    @functools.cached_property
    def _resident_test(self) -> DeviceEvaluation:
        return DeviceEvaluation(self._source.test, batch_size=_EVALUATION_BATCH, **self._statistics)

    def _make(self, kind: Any, seed: int) -> Any:
        return kind(
            self._source.train,
            self._split.indices,
            sampler=self._sampler(seed),
            seed=seed,
            **self._batch,
            **self._statistics,
        )

    def _sampler(self, seed: int) -> InstanceBalanced:
        return InstanceBalanced(len(self._split.indices), seed)
