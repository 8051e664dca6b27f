"""The images of a recipe, as training and evaluation take them."""

import functools
import logging
import math
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np

from jaxlt import UsageError
from jaxlt.data import (
    Batch,
    DeviceEvaluation,
    DevicePipeline,
    DrawStream,
    ImageSet,
    Pipeline,
    SkipLog,
    Source,
    Split,
    TfDataPipeline,
    Unreadable,
    evaluation_batches,
    refuse_undecodable,
    validation_images,
)
from jaxlt.data.sampling.random_numbers import stream_key
from jaxlt.data.sources.resampling import NUM_CROPS
from jaxlt.devices.processes import rows_of_all
from jaxlt.devices.sharding import Layout, replicated
from jaxlt.models import ImageClassifier
from jaxlt.recipes.execution import PipelineKind
from jaxlt.recipes.stage import Stage

_logger = logging.getLogger(__name__)

_EVALUATION_BATCH = 500
# Number of the image, corner of the crop, whether it is mirrored, and centre of the Cutout.
_BYTES_OF_DRAWS = 21


class InputPipelines:
    """Training pipelines of any seed and stage, and evaluation batches.

    Args:
        source: training and test images.
        split: which training images.
        kind: whether the host or the device makes the batches.
        validation_per_class: training images of each class to evaluate in place of the test images,
            0 for none.
        evaluated: the set of images that is evaluated otherwise.
        unreadable: what is done about images that cannot be decoded, see `TfDataPipeline`.
        test_time_augmentation: evaluated images are five crops each, see `ImageSet.five_crops`;
            None for one image.
        layout: of the devices among which batches are spread; of several processes each reads its
            part of every batch.

    Raises:
        UsageError: a class has fewer training images outside the split, there is no validation
            set, or the device is to skip images.
    """

    def __init__(
        self,
        source: Source,
        split: Split,
        kind: PipelineKind,
        validation_per_class: int = 0,
        *,
        evaluated: Literal["test", "val"] = "test",
        unreadable: Unreadable = "error",
        test_time_augmentation: int | None = None,
        layout: Layout | None = None,
    ):
        if kind == "device" and unreadable == "skip":
            raise UsageError("data.unreadable must be error with --pipeline device, got skip")
        self._source, self._split, self._kind = source, split, kind
        self._layout = layout or Layout()
        self._statistics: dict[str, Any] = {"mean": source.mean, "std": source.std}
        self._unreadable: Unreadable = unreadable
        self._resident: DevicePipeline | None = None
        images = {"test": source.test, "val": source.val}[evaluated]
        if images is None:
            raise UsageError(
                f"evaluation.images must be test, got val: {source.name} has no validation images"
            )
        if len(images.labels) == 0 and not validation_per_class:
            raise UsageError(
                f"data.source must have test images, got {source.name} without: give a list of "
                "them, or evaluate training images by --data.validation-per-class"
            )
        self._evaluated = source.train if validation_per_class else images
        self._batch_size = _EVALUATION_BATCH
        if test_time_augmentation is not None:
            self._evaluated = self._evaluated.five_crops(test_time_augmentation)
            self._batch_size //= NUM_CROPS
        self._batch_size += -self._batch_size % self._layout.mesh.size
        # Each evaluation skips the same ones, of which the first tells.
        self._skips = SkipLog(self._evaluated)
        self._evaluated_indices = None
        if validation_per_class:
            self._evaluated_indices = validation_images(
                source.train.labels, split.indices, validation_per_class, source.num_classes
            )

    def bytes_per_step(self, batch_size: int) -> int:
        """Returns what the host sends to the device for one step of one run."""
        pixels = math.prod(self._source.image_shape)
        return batch_size * (_BYTES_OF_DRAWS if self._kind == "device" else pixels)

    def pipeline(self, seed: int, stage: Stage, number: int) -> Pipeline:
        """Returns the training data of a seed in a stage.

        Those of the device share one copy of the images.
        """
        # Stages of one run must not see the same draws.
        stage_seed = stream_key(seed, f"stage {number}") if number else seed
        stream = self._stream(stage_seed, stage)
        if self._kind == "device":
            if self._resident is None:
                self._resident = DevicePipeline(self._source.train, stream, **self._statistics)
            return self._resident.with_stream(stream)
        return TfDataPipeline(
            self._source.train, stream, **self._statistics, unreadable=self._unreadable
        )

    def _stream(self, seed: int, stage: Stage) -> DrawStream:
        labels = self._source.train.labels[self._split.indices]
        return DrawStream(
            indices=self._split.indices,
            sampler=stage.sampler.build(labels, seed, self._source.num_classes, stage.epochs),
            batch_size=stage.batch_size,
            seed=seed,
            shard=self._layout.share,
            augmentation=stage.augmentation.build(),
        )

    def check_images(self) -> None:
        """Decodes the images of the split and those evaluated.

        Raises:
            UsageError: some cannot be decoded. If they are to be skipped they are logged instead.
        """
        found = self._source.train.undecodable(self._split.indices)
        found += self._evaluated.undecodable(self._evaluated_indices)
        if self._unreadable == "error":
            refuse_undecodable(found)
        for image in found:
            _logger.warning("image %s", image)

    @property
    def num_evaluated(self) -> int:
        """Images of an evaluation, those that cannot be decoded among them."""
        indices = self._evaluated_indices
        return len(self._evaluated.labels if indices is None else indices)

    def evaluated(self) -> Iterator[Batch]:
        """Yields the test images, or the held-out ones, spread over the devices."""
        if self._kind == "device":
            return self._spread(self._resident_evaluation.batches())
        return self._in_order(self._evaluated_indices, self._evaluated, self._skips)

    def training_features(
        self, model: ImageClassifier, variables: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns features (N, D) and labels (N,) of the split's training images, unaugmented."""

        @functools.partial(jax.jit, out_shardings=replicated(self._layout.mesh))
        def features_of(variables: Any, images: Any) -> Any:
            return model.apply(variables, images, train=False, method="features")

        variables = self._layout.place(variables)
        features, labels = [], []
        for batch in self._in_order(self._split.indices, self._source.train):
            real = batch.labels >= 0
            features.append(np.asarray(features_of(variables, batch.images))[real])
            labels.append(batch.labels[real])
        return np.concatenate(features), np.concatenate(labels)

    def epoch(self, stage: Stage, number: int) -> Iterator[jax.Array]:
        """Yields the images of an epoch of a stage's batches, without mixup, spread likewise."""
        pipeline = self.pipeline(0, stage, number)
        for chunk in pipeline.chunks(0, stage.num_steps(len(self._split.indices), 1), 1):
            step = jax.tree.map(lambda leaf: leaf[0], chunk.payload)
            yield self._layout.spread(pipeline.read(pipeline.resident, step)[0], axis=0)

    def _in_order(
        self, indices: np.ndarray | None, images: ImageSet, skips: SkipLog | None = None
    ) -> Iterator[Batch]:
        batches = evaluation_batches(
            images,
            batch_size=self._batch_size,
            indices=indices,
            **self._statistics,
            unreadable=self._unreadable,
            skips=skips,
            shard=self._layout.share,
        )
        return self._spread(batches)

    def _spread(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for images, labels in batches:
            yield Batch(self._layout.spread(images, axis=0), rows_of_all(labels))

    @functools.cached_property
    def _resident_evaluation(self) -> DeviceEvaluation:
        return DeviceEvaluation(
            self._evaluated,
            batch_size=self._batch_size,
            indices=self._evaluated_indices,
            **self._statistics,
            shard=self._layout.share,
        )
