"""How workers tell fronts how many connections they have from where, so that limits hold for those that were handed over too.

A worker that is to count listens on `counts_endpoint`, a stream socket. A front connects and says first who it is: the number of its
process, as it stands in the labels of its connections, and a line feed. From then on the worker tells everything once, and after that what
has changed, up to ten times a second: one JSON object a line.

| field | meaning |
|---|---|
| total | connections of the worker |
| sources | source (``core.process.addresses``) -> connections from there; those that did not change are left out, 0 is gone |
| last | the number of the last ticket that it took from this front; null when it has taken none |

By `last` the front knows which of the sockets that were adopted are counted here, and need not be counted by itself any more. The
connection ends with the worker, and then nothing of what it told holds: so a worker that is killed takes its connections out of the count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from core.wire.codec import from_json, to_json

#: Sources in one line.
_SOURCES_MAX: Final = 500


class Counted(NamedTuple):
    """One line of a worker."""

    total: int
    sources: dict[str, int]
    last: int | None


def counts_endpoint(run_dir: str, worker: int) -> str:
    """Return the path of the stream socket on which a worker tells its counts."""
    return f"{run_dir}/counts-{worker}"


def encode_counts(total: int, sources: Mapping[str, int], last: int | None) -> Iterator[bytes]:
    """Return the lines, one at least."""
    names = list(sources)
    for start in range(0, max(len(names), 1), _SOURCES_MAX):
        part: dict[str, Any] = {name: sources[name] for name in names[start : start + _SOURCES_MAX]}
        yield to_json({"total": total, "sources": part, "last": last}) + b"\n"


def decode_counts(line: bytes) -> Counted:
    """Undo `encode_counts`, for one line. Raises ValueError for what is none."""
    told = from_json(line)
    if not isinstance(told, dict) or not told.keys() >= {"total", "sources", "last"}:
        raise ValueError("expected the counts of a worker, a JSON object with `total`, `sources` and `last`")
    return Counted(told["total"], told["sources"], told["last"])
