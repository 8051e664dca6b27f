"""How much memory programs have."""

import os

import jax


def device_memory() -> int:
    """Returns the bytes that programs may take on each device.

    On CPU it is the machine's whole memory, not what is free: groups of members depend on it, and
    a resumed run must come to the same groups.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
