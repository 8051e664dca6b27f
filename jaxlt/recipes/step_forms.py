"""Which form of a step each batch takes, decided on the host and compiled once a form."""

from typing import NamedTuple

import numpy as np

from jaxlt.models import ImageClassifier
from jaxlt.recipes.stage import Stage
from jaxlt.training import Regime

# Shares of the batch that a program may have room for. Few, since each is a compilation.
_CAPACITIES = (1 / 8, 1 / 4, 1 / 2)


class StepForm(NamedTuple):
    """One form of the step.

    Attributes:
        phase: of the method, see `Method.phases`.
        capacity: room for images of the tail, see `jaxlt.Capacity`; None for the whole batch. Of a
            shard, where each has a perturbation of its own.
    """

    phase: int
    capacity: int | None


class StepForms:
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
        self._method, self._counts = stage.method, class_counts
        self.boundaries = stage.method.phases(stage.clock(sum(class_counts)))
        separable = regime.factored and regime.separates_images(model)
        self._shards = stage.perturbation_shards
        self._capacities: list[int] = []
        # Networks that suit loops take as many images as there are.
        if by_group and separable and not model.suits_loops:
            rooms = (int(share * stage.batch_size / self._shards) for share in _CAPACITIES)
            self._capacities = [room for room in rooms if room > 0]

    def choose(self, step: int, labels: np.ndarray) -> StepForm:
        """Returns the cheapest form that is exact for all steps of a chunk.

        Args:
            step: number of the chunk's first step.
            labels: (K, B) of its batches.
        """
        phase = sum(step >= boundary for boundary in self.boundaries)
        group = self._method.perturbed_alone(self._counts, phase)
        if group is None:
            return StepForm(phase, None)
        of_shards = group[labels].reshape(-1, labels.shape[-1] // self._shards)
        needed = of_shards.sum(axis=-1).max()
        fitting = [capacity for capacity in self._capacities if capacity >= needed]
        return StepForm(phase, min(fitting, default=None))
