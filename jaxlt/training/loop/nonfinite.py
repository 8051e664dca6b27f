"""What a run does about steps whose loss or update is not finite."""

import logging
from collections.abc import Sequence

import numpy as np

from jaxlt.devices.processes import on_all_processes
from jaxlt.errors import UsageError
from jaxlt.files.directory import write_json
from jaxlt.runs.run import Run
from jaxlt.training.loop.job import PlacedStage

_logger = logging.getLogger(__name__)


def skip_or_stop(runs: Sequence[Run], placed: PlacedStage, losses: np.ndarray, step: int) -> None:
    """Has R runs count those of K steps, from one on, whose losses (K, R) are not finite.

    Their batches are written down; one more of them than a run may leave out is a UsageError.
    """
    pipeline = placed.steps.pipeline
    for offset, index in np.argwhere(~np.isfinite(losses)):
        within = step + offset - placed.begin
        batch = {
            name: drawn(within, within + 1).reshape(len(runs), -1)[index].tolist()
            for name, drawn in (("images", pipeline.image_numbers), ("labels", pipeline.labels))
        }
        _skip(runs[index], int(step + offset + 1), float(losses[offset, index]), batch)


def _skip(run: Run, step: int, loss: float, batch: dict[str, list[int]]) -> None:
    file = run.workdir.path / "nonfinite_batch.json"
    record = {"step": step, "loss": str(loss), "skipped": len(run.skipped), **batch}
    run.by_first(lambda: write_json(file, record))
    if len(run.skipped) >= run.skip_nonfinite:
        whose = run.label or run.workdir.path
        before = f", after {len(run.skipped)} skipped steps" if run.skipped else ""
        text = (
            f"training loss of {whose} must stay finite, got {loss} at step {step}{before}: "
            f"lower the learning rate or the perturbation radius; its batch is in {file}"
        )
        raise on_all_processes(UsageError(text))
    run.skipped.append(step)
    fault = f"its loss or update is not finite ({len(run.skipped)} of {run.skip_nonfinite})"
    _logger.warning("%s: step %d is skipped, %s; its batch is in %s", run.label, step, fault, file)
