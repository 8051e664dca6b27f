"""How runs are computed, as flags that the programs share."""

import dataclasses
from typing import Literal

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


DEFAULT_EXECUTION = Execution()
