"""The images of a recipe, as training and evaluation take them."""

import functools
import logging
import math
from collections.abc import Iterator
from typing import Any

from jaxlt import UsageError, data
from jaxlt.data import Batch, DrawStream, ImageSet, Pipeline, Source, Split, Unreadable
from jaxlt.data.sampling.random_numbers import stream_key
from jaxlt.data.sources.image_set import refuse_undecodable
from jaxlt.data.sources.resampling import NUM_CROPS
from jaxlt.data.sources.unreadable import SkipLog
from jaxlt.devices.processes import rows_of_all
from jaxlt.devices.sharding import Layout
from jaxlt.recipes.recipe import PipelineKind, Recipe
from jaxlt.recipes.stage import Stage

_logger = logging.getLogger(__name__)

_EVALUATION_BATCH = 500
# Number of the image, corner of the crop, whether it is mirrored, and center of the Cutout.
_BYTES_OF_DRAWS = 21


class InputPipelines:
    """Training pipelines of any seed and stage, and evaluation batches.

    They are spread over the layout's devices; of several processes each reads its part of every
    batch. UsageError says what the data, or the `kind` of pipeline, cannot do.
    """

    def __init__(
        self, recipe: Recipe, source: Source, split: Split, kind: PipelineKind, layout: Layout
    ):
        self._unreadable: Unreadable = recipe.data.unreadable
        if kind == "device" and self._unreadable == "skip":
            raise UsageError("data.unreadable must be error with --pipeline device, got skip")
        self.split, self.layout, self.image_shape = split, layout, source.image_shape
        self._source, self._kind = source, kind
        self._statistics: dict[str, Any] = {"mean": source.mean, "std": source.std}
        self._resident: data.DevicePipeline | None = None
        evaluated = recipe.data.evaluated(source, split, recipe.evaluation.images)
        self._evaluated, self._evaluated_indices = evaluated
        batch_size = _EVALUATION_BATCH
        if (margin := recipe.evaluation.test_time_augmentation) is not None:
            self._evaluated = self._evaluated.five_crops(margin)
            batch_size //= NUM_CROPS
        # Each evaluation skips the same ones, of which the first tells.
        self._skips = SkipLog(self._evaluated) if self._unreadable == "skip" else None
        self._in_order = self._options(batch_size)
        # A small set is not filled up to a batch of hundreds, which the network would pass over.
        self._evaluation = self._options(min(batch_size, self.num_evaluated))

    def _options(self, batch_size: int) -> dict[str, Any]:
        batch_size += -batch_size % self.layout.mesh.size
        return {**self._statistics, "batch_size": batch_size, "shard": self.layout.share}

    def bytes_per_step(self, batch_size: int) -> int:
        """Returns what the host sends to the device for one step of one run."""
        pixels = math.prod(self.image_shape)
        return batch_size * (_BYTES_OF_DRAWS if self._kind == "device" else pixels)

    def pipeline(self, seed: int, stage: Stage, number: int) -> Pipeline:
        """Returns the training data of a seed in a stage; the device's share their images."""
        # Stages of one run must not see the same draws.
        seed = stream_key(seed, f"stage {number}") if number else seed
        images, indices = self._source.train, self.split.indices
        labels, num_classes = images.labels[indices], self._source.num_classes
        stream = DrawStream(
            indices=indices,
            sampler=stage.sampler.build(labels, seed, num_classes, stage.epochs),
            batch_size=stage.batch_size,
            seed=seed,
            shard=self.layout.share,
            augmentation=stage.augmentation.build(),
        )
        if self._kind == "tf":
            unreadable = self._unreadable
            return data.TfDataPipeline(images, stream, **self._statistics, unreadable=unreadable)
        if self._resident is None:
            self._resident = data.DevicePipeline(images, stream, **self._statistics)
        return self._resident.with_stream(stream)

    def check_images(self) -> None:
        """Raises UsageError if images cannot be decoded; logs them if they are to be skipped."""
        found = self._source.train.undecodable(self.split.indices)
        found += self._evaluated.undecodable(self._evaluated_indices)
        if self._unreadable == "error":
            refuse_undecodable(found)
        for image in found:
            _logger.warning("image %s", image)

    @property
    def num_evaluated(self) -> int:
        """Images of an evaluation, unreadable ones among them."""
        indices = self._evaluated_indices
        return len(self._evaluated.labels if indices is None else indices)

    def evaluated(self) -> Iterator[Batch]:
        """Yields the test images, or the validation images, spread over the devices."""
        if self._kind == "device":
            return self._spread(self._resident_evaluation.batches())
        images, indices = self._evaluated, self._evaluated_indices
        return self._batches(images, indices, skips=self._skips, **self._evaluation)

    def training_images(self) -> Iterator[Batch]:
        """Yields the images of the split, unaugmented and in order, likewise."""
        return self._batches(self._source.train, self.split.indices, **self._in_order)

    def _batches(self, images: ImageSet, indices: Any, **options: Any) -> Iterator[Batch]:
        options["unreadable"] = self._unreadable
        return self._spread(data.evaluation_batches(images, indices=indices, **options))

    def _spread(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for images, labels in batches:
            yield Batch(self.layout.spread(images, axis=0), rows_of_all(labels))

    @functools.cached_property
    def _resident_evaluation(self) -> data.DeviceEvaluation:
        return data.DeviceEvaluation(
            self._evaluated, indices=self._evaluated_indices, **self._evaluation
        )
