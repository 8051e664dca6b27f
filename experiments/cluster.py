"""Several processes that run one program together, as flags, and how such a program ends."""

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping

from jaxlt.errors import Interrupted, UsageError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Which processes train together.

    All must see the workdir, of which process 0 writes all but the checkpoints; each reads its part
    of every batch.
    """

    distributed: bool = False
    """This process is one of several, started alike: who they are is found in the environment of
    SLURM, Open MPI or Kubernetes, or given by the flags that follow."""
    coordinator: str | None = None
    """HOST:PORT at which all reach process 0."""
    num_processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Number of this one, from 0."""
    join_seconds: int = 300
    """How long to wait for the others at the start."""
    heartbeat_seconds: int = 60
    """After so long without a sign of life of one process the others stop."""

    def check(self) -> None:
        """Raises UsageError for numbers that no process can have."""
        if not self.distributed:
            alone = vars(ONE_PROCESS)
            given = [name for name, value in vars(self).items() if value != alone[name]]
            raise UsageError(f"distributed must be given with {', '.join(given)}, got nothing")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdecimal():
            raise UsageError(f"coordinator must be HOST:PORT, got {self.coordinator}")
        for name in ("num_processes", "process", "join_seconds", "heartbeat_seconds"):
            number, least = getattr(self, name), 0 if name == "process" else 1
            if number is not None and number < least:
                raise UsageError(f"{name} must be at least {least}, got {number}")
        if self.num_processes is not None and (self.process or 0) >= self.num_processes:
            raise UsageError(
                f"process must be below num_processes, {self.num_processes}, got {self.process}"
            )

    @contextlib.contextmanager
    def joined(self, flags: Mapping[str, object]) -> Iterator[None]:
        """Does the work of a program as one of these processes, process 0 alone logging.

        What ends all of them is said by process 0 alone. What ends one of them is said by that
        one, and the others stop: with a line of their own and status 75 where an operation that
        they share fails, or, where JAX's coordination service notices first (of process 0, or of
        one that hangs, after `heartbeat_seconds`), by its SIGABRT, which says that a task has died.
        `flags` are those, by name, that all must have been given alike.
        """
        self.check()
        from jaxlt.devices.cluster import is_loss_of_a_process, join_processes
        from jaxlt.devices.processes import is_first

        join_processes(
            self.coordinator,
            self.num_processes,
            self.process,
            join_seconds=self.join_seconds,
            heartbeat_seconds=self.heartbeat_seconds,
        )
        import jax

        if not is_first():
            logging.getLogger().setLevel(logging.ERROR)
        try:
            _check_same(flags)
            yield
        except UsageError as error:
            if not error.on_all_processes:
                _leave(f"process {jax.process_index()}: error: {error}", 2)
            _end(2)
            raise
        except Interrupted as stop:
            _end(stop.exit_status)
            raise
        except KeyboardInterrupt:
            _leave(f"process {jax.process_index()}: stopped by SIGINT", 128 + signal.SIGINT)
        except Exception as error:
            if is_loss_of_a_process(error):
                first_line = str(error).strip().splitlines()[0][:160]
                _leave(
                    f"process {jax.process_index()}: another process has died, started again the "
                    f"run goes on from its newest checkpoint ({first_line})",
                    os.EX_TEMPFAIL,
                )
            _leave(traceback.format_exc(), 1)
        jax.distributed.shutdown()


ONE_PROCESS = Cluster()


def _check_same(flags: Mapping[str, object]) -> None:
    """Refuses processes that would wait for each other in different places."""
    from jaxlt.devices.cluster import texts_of_all
    from jaxlt.devices.processes import on_all_processes

    for name, value in flags.items():
        given = texts_of_all(repr(value))
        for process, other in enumerate(given):
            if other != given[0]:
                reason = (
                    f"{name} must be the same for all processes, got {given[0]} for process 0 and "
                    f"{other} for process {process}"
                )
                raise on_all_processes(UsageError(reason))


def _end(status: int) -> None:
    """Leaves the others when all are here; of them the first alone goes on to say why."""
    import jax

    is_first = jax.process_index() == 0
    jax.distributed.shutdown()
    if not is_first:
        sys.exit(status)


def _leave(message: str, status: int) -> None:
    """Says why and ends at once, without waiting for processes that wait for this one."""
    print(message, file=sys.stderr, flush=True)
    os._exit(status)
