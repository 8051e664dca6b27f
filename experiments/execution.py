"""How runs are computed, as flags that the programs share."""

import dataclasses
from typing import Literal

from jaxlt.errors import UsageError

PipelineKind = Literal["tf", "device"]
ReplicasMode = Literal["auto", "together", "apart"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """What changes no number of a run beyond rounding; a begun run may go on under another."""

    pipeline: PipelineKind = "tf"
    """tf: the host makes the batches, by tf.data. device: the images stay in the device's memory
    and are augmented there; the batches are the same."""
    replicas: ReplicasMode = "auto"
    """Several runs of one recipe. together: side by side in one program, as many as fit in memory;
    their numbers differ from those of a run alone by rounding. apart: one after the other. auto:
    together on accelerators; on CPU, where it hardly pays, for small_vit alone."""
    measure_every: int = 100
    """Steps between two measurements of sharpness by group of classes, which go to metrics.jsonl
    and TensorBoard; 0 for none. A stage's first is after so many of its steps."""

    def __post_init__(self):
        """Refuses numbers that no run can have.

        Raises:
            UsageError: one of them is out of range.
        """
        if self.measure_every < 0:
            raise UsageError(f"measure_every must be at least 0, got {self.measure_every}")


DEFAULT_EXECUTION = Execution()
# A hundred steps are a good part of a run that takes seconds.
EXECUTION_OF_SHORT_RUNS = Execution(measure_every=20)
