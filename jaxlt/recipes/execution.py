"""How runs are computed, as flags that the programs share."""

import dataclasses
from typing import Literal

from jaxlt.errors import UsageError

PipelineKind = Literal["tf", "device"]
EnsembleMode = Literal["auto", "together", "apart"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """What changes no number of a run beyond rounding; a begun run may go on under another."""

    pipeline: PipelineKind = "tf"
    """tf: the host makes the batches, by tf.data. device: the images stay in the device's memory
    and are augmented there; the batches are the same."""
    ensemble: EnsembleMode = "auto"
    """Several seeds of one recipe. together: side by side in one program, as many as fit in memory;
    their numbers differ from those of a run alone by rounding. apart: one after the other. auto:
    together on accelerators; on CPU, where it hardly pays, for small_vit alone."""
    measure_every: int = 100
    """Steps between two measurements of sharpness by group of classes, which go to metrics.jsonl
    and TensorBoard; 0 for none. A stage's first is after so many of its steps."""

    keep_checkpoints: int = 2
    """Latest checkpoints of a run that are kept, beside the best by balanced accuracy. What is kept
    is what experiments.landscape can draw the way of a run through."""

    shard_parameters: bool = False
    """Divide large parameters and the optimizer's state among the devices. It is so while steps are
    taken: before the first step, at a resumption and where stages meet, each
    process makes them whole."""

    skip_nonfinite: int = 0
    """Steps with a loss or update that is not finite which may be left out. At one more a run
    stops, and may go on with a larger number."""

    def __post_init__(self):
        """Refuses numbers that no run can have.

        Raises:
            UsageError: one of them is out of range.
        """
        for name, least in (("measure_every", 0), ("keep_checkpoints", 1), ("skip_nonfinite", 0)):
            if (number := getattr(self, name)) < least:
                raise UsageError(f"{name} must be at least {least}, got {number}")


DEFAULT_EXECUTION = Execution()
UNMEASURED = Execution(measure_every=0)
# Of runs that take seconds, a hundred steps are a good part and every checkpoint is small.
EXECUTION_OF_SHORT_RUNS = Execution(measure_every=20, keep_checkpoints=20)
