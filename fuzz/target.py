"""What a target is: a function that must survive any bytes, how to make such bytes, and which modules it is about."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

CORPUS: Final = Path(__file__).resolve().parent / "corpus"

#: In the order in which they run; each is a module of ``fuzz.targets`` with a `TARGET`.
NAMES: Final = (
    *("lobby", "message", "session", "plain", "recognise", "frames", "upgrade", "envelope", "handover"),
    *("sanitize", "tokens"),
)


class Target(NamedTuple):
    """One thing to try out."""

    #: Raises AssertionError, or whatever the code lets escape, when something is wrong; else it says whether the input got `past`.
    check: Callable[[bytes], bool]
    #: Another input made from one that was interesting; the same for the same state of the random numbers.
    mutate: Callable[[bytes, Random], bytes]
    #: What an input has to get past, for the report.
    past: str
    #: The modules whose lines are counted.
    modules: tuple[str, ...]


def load(name: str) -> Target:
    """Load the target of this name."""
    target: Target = importlib.import_module(f"fuzz.targets.{name}").TARGET
    return target


def seeds(name: str) -> list[bytes]:
    """List the inputs in the repository, in the order of their file names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
