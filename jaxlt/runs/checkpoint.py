"""Checkpoints of a run by Orbax: the last few and the best, written while training goes on."""

import dataclasses
import hashlib
import importlib
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxlt.devices.cluster import whole
from jaxlt.devices.processes import are_several, on_all_processes
from jaxlt.errors import UsageError

# Of what a checkpoint holds; those before there was a number are of format 0.
FORMAT = 2

COUNTING = ("checkpointers.async_checkpointer", "futures.future", "futures.signaling_client")
"""Modules of `orbax.checkpoint._src` that count how long a save has taken."""


class Checkpoints:
    """The checkpoints of one run.

    A checkpoint has its final name only when all of it is on disk, so that a kill at any moment
    leaves the ones before whole. The digest saved with each state tells a damaged one at restore.

    Args:
        directory: created if missing.
        keep: how many of the latest are kept, beside the one of best balanced accuracy.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        count_saves_by_monotonic_clock()
        self._directory = directory.absolute()
        best = BestN(
            get_metric_fn=lambda metrics: metrics["balanced_accuracy"],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "record")
        )

    def save(self, state: Any, record: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Saves a state under its step, in the background; a step already saved is left alone.

        Args:
            state: copied before this returns, so that it may be donated; without what is frozen.
            record: JSON values to come back with the state.
            metrics: of the evaluation at this step, None where there was none.

        Raises:
            UsageError: a parameter or a statistic is not finite; nothing is saved.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        saved = jax.tree.map(jnp.copy, storable(state))
        if not _are_finite((saved.params, saved.batch_stats)):
            reason = (
                f"parameters must stay finite, after step {step} they are not: lower the learning "
                "rate or the perturbation radius; the checkpoints in "
                f"{self._directory} stay as they are"
            )
            raise on_all_processes(UsageError(reason))
        record = {**record, "format": FORMAT, "digest": digest(saved)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(saved), record=ocp.args.JsonSave(record)
        )
        self._manager.save(step, args=args, metrics=metrics)

    def restore_latest(
        self, template_at: Callable[[int], Any], until: int | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest checkpoint that is whole; None if there is none at all.

        A damaged one is reported and, once an older one was read, set aside as `damaged-STEP`.

        Args:
            template_at: from a checkpoint's step to a state of the run as it was then, for shapes,
                dtypes and shardings, and for the frozen parameters.
            until: as if there were none after this step.

        Raises:
            UsageError: none of them can be read, or one is of a later version of this library.
        """
        steps = [step for step in self._manager.all_steps() if until is None or step <= until]
        if not steps:
            return None
        from jaxlt.runs.restore import restore_newest

        return restore_newest(self._manager, steps, template_at)

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints after a step: the run goes on there and will make them again."""
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def wait(self) -> None:
        """Returns when every save is on disk; raises what a save in the background raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and frees the manager's threads."""
        self._manager.close()


@jax.jit
def _are_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def storable(state: Any) -> Any:
    """Leaves out what is frozen, and replaces the typed PRNG key by its words."""
    # Every array format can hold words.
    return dataclasses.replace(state, key=jax.random.key_data(state.key), frozen={})


def digest(tree: Any) -> str:
    """Returns a hash of the arrays of a pytree, in hexadecimal; called by all processes."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(whole(leaf) if are_several() else leaf).tobytes())
    return found.hexdigest()


def count_saves_by_monotonic_clock() -> None:
    """Has Orbax count the time that a save takes by a clock that never jumps.

    Orbax takes `time.time`: a clock that is set forward while a save is under way would end the run
    with a TimeoutError. Its modules that count are private: `pyproject.toml` pins the versions that
    have them, and in another one a run goes on by Orbax's clock. Remove this function when Orbax
    counts time limits by `time.monotonic`, or takes a clock.
    """
    monotonic = types.SimpleNamespace(**{**vars(time), "time": time.monotonic})
    for name in COUNTING:
        try:
            module = importlib.import_module(f"orbax.checkpoint._src.{name}")
        except ImportError:
            continue
        if getattr(module, "time", None) is time:
            module.__dict__["time"] = monotonic
