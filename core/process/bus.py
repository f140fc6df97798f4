"""Where the workers find each other: the path of the bus (``workers.bus``) of each process of a worker."""

from __future__ import annotations


def bus_endpoint(run_dir: str, worker: int, generation: int) -> str:
    """Return the path on which a process of a worker receives envelopes.

    Each process has one of its own, so what was sent to a process never reaches the one after it. The number in it is the end of the
    generation, since paths of Unix sockets are short.
    """
    return f"{run_dir}/bus-{worker}-{generation & 0xFFFF_FFFF:08x}"
