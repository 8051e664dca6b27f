"""Which form of a step each batch takes, decided on the host and compiled once a form."""

from typing import NamedTuple

import numpy as np

from experiments.methods import switch_step
from experiments.stage import Stage
from jaxlt.models import ImageClassifier
from jaxlt.training import Regime

# Shares of the batch that a program may have room for. Few, since each is a compilation.
_CAPACITIES = (1 / 8, 1 / 4, 1 / 2)


class StepPath(NamedTuple):
    """One form of the step.

    Attributes:
        second_stage: whether SSE-SAM is in its second stage.
        capacity: room for images of the tail, see `jaxlt.Capacity`; None for the whole batch. Of a
            shard, where each has a perturbation of its own.
    """

    second_stage: bool
    capacity: int | None


class Paths:
    """Chooses the form of each step of a stage.

    Args:
        stage: what is trained.
        class_counts: training images of each class.
        model: the network.
        regime: of the stage.
        by_group: see `passes_by_group` of `jaxlt.training.make_train_step`.

    Attributes:
        boundaries: steps at which the choice does not depend on the batch alone.
    """

    def __init__(
        self,
        stage: Stage,
        class_counts: tuple[int, ...],
        model: ImageClassifier,
        regime: Regime,
        *,
        by_group: bool = True,
    ):
        switch = switch_step(stage, sum(class_counts)) if stage.method == "sse_sam" else None
        self.boundaries = () if switch is None else (switch,)
        self._one_group = stage.method == "imb_sam"
        self._tail = np.array(class_counts) < stage.tail_threshold
        separable = regime.factored and regime.separates_images(model)
        self._shards = stage.perturbation_shards
        self._capacities: list[int] = []
        # Networks that suit loops take as many images as there are.
        if by_group and separable and not model.suits_loops:
            rooms = (int(share * stage.batch_size / self._shards) for share in _CAPACITIES)
            self._capacities = [room for room in rooms if room > 0]

    def choose(self, step: int, labels: np.ndarray) -> StepPath:
        """Returns the cheapest form that is exact for all steps of a chunk.

        Args:
            step: number of the chunk's first step.
            labels: (K, B) of its batches.
        """
        second_stage = any(step >= boundary for boundary in self.boundaries)
        if not (self._one_group or second_stage):
            return StepPath(second_stage, None)
        of_shards = self._tail[labels].reshape(-1, labels.shape[-1] // self._shards)
        needed = of_shards.sum(axis=-1).max()
        fitting = [capacity for capacity in self._capacities if capacity >= needed]
        return StepPath(second_stage, min(fitting, default=None))
