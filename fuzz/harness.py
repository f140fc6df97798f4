"""``python -m fuzz.harness NAME [flags of libFuzzer] [directories]``: one target under atheris, until something fails or the time is over.

Every few seconds it writes what it has counted to ``counts.json`` in the directory that ``FUZZ_COUNTS`` names.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Final

import atheris

from fuzz.target import load

#: Seconds between two reports.
_INTERVAL: Final = 1.0


class Counts:
    """How many inputs there were, and how many got past what matters."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self.inputs = 0
        self.past = 0

    def note(self, past: bool) -> None:
        """One more."""
        self.inputs += 1
        self.past += past
        if not self.inputs % 256 and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL
            self.write()

    def write(self) -> None:
        """Tell whoever waits."""
        self._path.write_text(json.dumps({"inputs": self.inputs, "past": self.past}))


def main() -> None:
    """Fuzz; does not return."""
    with atheris.instrument_imports(include=["core", "router"], enable_loader_override=False):
        target = load(sys.argv[1])
    counts = Counts(Path(os.environ["FUZZ_COUNTS"]) / "counts.json")
    atexit.register(counts.write)

    def try_out(data: bytes) -> None:
        counts.note(target.check(data))

    # One for all: to make one from each seed would take as long as the change itself. What matters is written down anyway.
    rng = Random(os.environ.get("FUZZ_SEED"))

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        return target.mutate(bytes(data), rng)[:size]

    atheris.Setup([sys.argv[0], *sys.argv[2:]], try_out, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
