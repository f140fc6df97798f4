"""How the files below the data directory are named, and what ``layout.json`` says about them.

    lock                 whoever holds the lock on it owns the directory
    layout.json          which generation of files holds, and how many workers it is for
    shards-2/            the files of generation 2, one for each worker
        shard-0.db
        shard-0.db-log-1     what has been committed and is not in that file yet (``workers.store.commit_log``)
    limits-0.json        what counted against limits when worker 0 ended; worth nothing a minute later

Which worker owns a user depends on the number of workers, so another number needs other files. They are made as a new generation beside
the old one, and ``layout.json``, replaced as a whole, is what makes them hold. A generation that it does not name is left over from a
change that was interrupted, or that has just been finished.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from core.placement import WORKERS_MAX
from core.wire.codec import from_json, to_json

LOCK_NAME: Final = "lock"
LAYOUT_NAME: Final = "layout.json"
#: Of ``layout.json`` and of everything that it implies; another one is for another version of FastChat.
FORMAT: Final = 1

_EXPECTED: Final = f'expected JSON such as {{"format": {FORMAT}, "generation": 1, "workers": 4}}'
#: Without leading zeros, so that a generation has one name only.
_GENERATION: Final = re.compile(r"shards-([1-9][0-9]{0,17})", re.ASCII)


class LayoutError(ValueError):
    """``layout.json`` can't be understood; the message is a clause that says what was expected, without the file's name."""


class Layout(NamedTuple):
    """The files that hold. `generation` counts from 1; `workers` is 1 to 64."""

    generation: int
    workers: int

    @property
    def directory(self) -> str:
        """The directory of the generation, below the data directory."""
        return f"shards-{self.generation}"

    def shard(self, worker: int) -> str:
        """Return the file of one worker, below the data directory."""
        return f"{self.directory}/{self.shard_name(worker)}"

    def shards(self) -> list[str]:
        """Return the files of all workers, in their order."""
        return [self.shard(worker) for worker in range(self.workers)]

    @staticmethod
    def shard_name(worker: int) -> str:
        """Return the same without its directory."""
        return f"shard-{worker}.db"

    def encode(self) -> bytes:
        """Return the content of ``layout.json``."""
        return to_json({"format": FORMAT, "generation": self.generation, "workers": self.workers}) + b"\n"


def parse_layout(content: bytes) -> Layout:
    """Undo `Layout.encode`; what else stands in there is ignored. Raises LayoutError."""
    try:
        layout = from_json(content)
    except ValueError:
        came = "the file is not JSON" if content.strip() else "the file is empty"
        raise LayoutError(f"{came}; {_EXPECTED}") from None
    if not isinstance(layout, dict):
        raise LayoutError(f"the file is not a JSON object; {_EXPECTED}")
    if layout.get("format") != FORMAT or isinstance(layout["format"], bool):
        raise LayoutError(
            f"`format` is {_shown(layout.get('format'))}, but this version of FastChat supports only {FORMAT} (another version may have"
            " written the file)"
        )
    return Layout(
        _number(layout, "generation", 10**18 - 1),
        _number(layout, "workers", WORKERS_MAX),
    )


def generation_of(name: str) -> int | None:
    """Return the generation whose directory has this name; None if it is none of ours."""
    match = _GENERATION.fullmatch(name)
    return int(match[1]) if match else None


def _number(layout: dict[str, object], name: str, greatest: int) -> int:
    value = layout.get(name)
    if type(value) is not int or not 1 <= value <= greatest:
        raise LayoutError(f"`{name}` is {_shown(value)}, not a number from 1 to {greatest}; {_EXPECTED}")
    return value


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:40]
