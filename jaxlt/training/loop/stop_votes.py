"""Agreement of processes on when to stop for a signal."""

import functools
from typing import Any

import jax
import numpy as np

from jaxlt.devices.processes import are_several
from jaxlt.devices.sharding import Layout, replicated

_LAYOUT = Layout()


class StopVotes:
    """Agreement of all processes to stop for a signal that one of them has received.

    Of one process a signal counts at once. The votes of several are counted by their devices, and
    read when the next are cast: by then the devices have done so, and nobody waits.

    Args:
        received: signals of this process, appended to while it trains.
    """

    def __init__(self, received: list[int]):
        self._received = received
        self._cast: jax.Array | None = None

    def __call__(self) -> int:
        """Votes; returns the signal to stop for, 0 to go on. All processes return the same."""
        if not are_several():
            return self._own
        before, self._cast = self._cast, _largest_of_all(self._own)
        return 0 if before is None else int(before)

    def settle(self) -> int:
        """Votes and waits for the result."""
        self._cast = None
        return int(_largest_of_all(self._own)) if are_several() else self._own

    @property
    def _own(self) -> int:
        return self._received[0] if self._received else 0


def _largest_of_all(number: int) -> jax.Array:
    votes = _LAYOUT.spread(np.full(jax.local_device_count(), number, np.int32), axis=0)
    return _largest()(votes)


@functools.cache
def _largest() -> Any:
    return jax.jit(lambda votes: votes.max(), out_shardings=replicated(_LAYOUT.mesh))
