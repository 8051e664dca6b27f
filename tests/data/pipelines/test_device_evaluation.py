from typing import Any

import jax
import numpy as np
import pytest

from jaxlt.data.pipelines.device_pipeline import DeviceEvaluation
from jaxlt.data.pipelines.tf_pipeline import evaluation_batches
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = ArrayImages(RNG.integers(0, 256, (50, 6, 9, 3), np.uint8), RNG.integers(0, 5, 50))
STATISTICS: Any = {"mean": (0.5, 0.25, 0.75), "std": (0.25, 0.5, 0.2)}


@pytest.mark.parametrize("indices", [None, RNG.permutation(50)[:23]])
@pytest.mark.parametrize(
    ("batch_size", "shard"),
    [(1, (0, 1)), (7, (0, 1)), (23, (0, 1)), (50, (0, 1)), (64, (0, 1)), (8, (1, 2)), (64, (3, 4))],
)
def test_batches_are_those_of_tf_data_every_time(batch_size, shard, indices):
    options = {"batch_size": batch_size, "indices": indices, "shard": shard, **STATISTICS}
    evaluation = DeviceEvaluation(IMAGES, **options)
    for _ in range(2):
        theirs = evaluation_batches(IMAGES, **options)
        for ours, expected in zip(evaluation.batches(), theirs, strict=True):
            assert isinstance(ours.images, jax.Array)
            assert ours.images.dtype == np.float32
            np.testing.assert_allclose(ours.images, expected.images, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(ours.labels, expected.labels)
            assert ours.labels.dtype == np.int32


def test_an_empty_batch_is_refused():
    with pytest.raises(UsageError, match=r"batch_size must be positive .* got 0"):
        DeviceEvaluation(IMAGES, batch_size=0, **STATISTICS)
