"""Checkpoints of a run by Orbax: the last few and the best, written while training goes on."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxlt.devices.processes import by_first, on_all_processes, texts_of_all
from jaxlt.devices.sharding import whole
from jaxlt.errors import UsageError, first_line
from jaxlt.runs.monotonic_saves import count_saves_by_monotonic_clock
from jaxlt.runs.stored_arrays import newest_whole, stored_arrays

# Of what a checkpoint holds; those before there was a number are of format 0.
FORMAT = 1

_logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run.

    A save returns as soon as the state is copied and becomes visible under its final name only
    when all of it is on disk, so that a kill at any moment leaves the ones before whole. The
    digest saved with each state tells a damaged one at restore.

    Args:
        directory: created if missing.
        keep: how many of the latest are kept, beside the best.
        best_metric: name of the metric whose largest value is the best.
    """

    def __init__(self, directory: Path, *, keep: int = 2, best_metric: str = "balanced_accuracy"):
        count_saves_by_monotonic_clock()
        self._directory = directory.absolute()
        policy = AnyPreservationPolicy(
            [
                LatestN(keep),
                BestN(
                    get_metric_fn=lambda metrics: metrics[best_metric],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, cleanup_tmp_directories=True
            ),
            item_names=("state", "record"),
        )

    def save(self, state: Any, record: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Saves a state under its step, in the background; a step already saved is left alone.

        Frozen parameters are not saved.

        Args:
            state: copied before this returns, so that it may be donated.
            record: JSON values to come back with the state.
            metrics: of the evaluation at this step, None where there was none.

        Raises:
            UsageError: a parameter or a statistic is not finite; nothing is saved.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        saved = jax.tree.map(jnp.copy, _storable(state))
        if not _are_finite((saved.params, saved.batch_stats)):
            raise on_all_processes(
                UsageError(
                    f"parameters must stay finite, after step {step} they are not: lower the "
                    "learning rate or the perturbation radius; the checkpoints in "
                    f"{self._directory} stay as they are"
                )
            )
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(saved),
                record=ocp.args.JsonSave({**record, "format": FORMAT, "digest": digest(saved)}),
            ),
            metrics=metrics,
        )

    def restore_latest(
        self, template_at: Callable[[int], Any], until: int | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest checkpoint that is whole; None if there is none at all.

        A damaged one is reported and, once an older one was read, set aside as `damaged-STEP`.

        Args:
            template_at: from a checkpoint's step to a state of the same run as it was then, for
                shapes, dtypes and shardings, and for the frozen parameters.
            until: as if there were none after this step.

        Raises:
            UsageError: there are checkpoints and none of them can be read, or one is of a later
                version of this library.
        """
        formats: list[int] = []

        def restore(step: int) -> tuple[Any, dict[str, Any]]:
            formats.append(self._format(step))
            return self._restore(step, template_at(step))

        steps = [step for step in self._manager.all_steps() if until is None or step <= until]
        restored, damaged = newest_whole(self._directory, steps, restore)
        if restored is not None:
            self._set_aside(damaged)
            return restored
        if damaged:
            earlier = " by this version, an earlier one wrote them" if 0 in formats else ""
            raise on_all_processes(
                UsageError(
                    f"checkpoints in {self._directory}: none of the {len(damaged)} can be read"
                    f"{earlier}; they are left as they are, choose another workdir to start again"
                )
            )
        return None

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

    def _format(self, step: int) -> int:
        """Returns the format of a checkpoint.

        Raises:
            UsageError: it is one of the future.
        """
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        number = _agreed(lambda: self._manager.restore(step, args=args)["record"].get("format", 0))
        if number > FORMAT:
            raise on_all_processes(
                UsageError(
                    f"checkpoint of step {step} in {self._directory} must be of format {FORMAT} or "
                    f"earlier, it is of format {number}: a later version of jaxlt wrote it"
                )
            )
        return number

    def _restore(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        restored = _agreed(lambda: self._read(step, _storable(template)))
        record = restored["record"]
        record.pop("format", None)
        if record.pop("digest") != digest(restored["state"]):
            raise ValueError("its contents do not match their digest")
        key = jax.random.wrap_key_data(restored["state"].key)
        return dataclasses.replace(restored["state"], key=key, frozen=template.frozen), record

    def _read(self, step: int, template: Any) -> Any:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        stored_arrays(self._directory / str(step) / "state")
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes), record=ocp.args.JsonRestore()
        )
        return self._manager.restore(step, args=args)

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints out of the way of the ones that training will write again."""
        by_first(lambda: self._rename(steps))
        if steps:
            self._manager.reload()

    def _rename(self, steps: list[int]) -> None:
        for step in steps:
            aside = self._directory / f"damaged-{step}"
            for again in itertools.count(2):
                if not aside.exists():
                    break
                aside = self._directory / f"damaged-{step}-{again}"
            (self._directory / str(step)).rename(aside)
            _logger.warning("checkpoint of step %d is set aside as %s", step, aside)


def _agreed(read: Callable[[], Any]) -> Any:
    """Reads on all processes: what one of them cannot read, none restores."""
    value, fault = None, ""
    try:
        value = read()
    except Exception as error:
        fault = first_line(error)
    for found in texts_of_all(fault):
        if found:
            raise ValueError(found)
    return value


@jax.jit
def _are_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _storable(state: Any) -> Any:
    """Leaves out what is frozen, and replaces the typed PRNG key by its words."""
    # Every array format can hold words.
    return dataclasses.replace(state, key=jax.random.key_data(state.key), frozen={})


def digest(tree: Any) -> str:
    """Returns a hash of the arrays of a pytree, in hexadecimal; called by all processes."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(whole(leaf)).tobytes())
    return found.hexdigest()
