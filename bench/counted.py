"""The process whose instructions are counted: ``python -m bench.counted ROUNDS NAME ...``, under valgrind; `bench.guard` starts it.

Start-up must not count, nor what is prepared. Valgrind tells its number only at the end of a process; but a fork takes the number so far
along. So a *checkpoint* is a child that ends at once: its number is what its parent had counted until then. There are three, before an
empty stretch, behind it, and behind the messages: the difference of the differences is what the messages cost, and the price of a
checkpoint cancels out. Each scenario runs in a fork of its own of a process that has only imported, so it makes no difference which
others are measured.

Prints a line of JSON for each scenario: its name, its messages, and the process ids of the three.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from bench.cast import MESSAGES_A_TURN
from bench.hot_path import SCENARIOS, Build
from bench.reference import UNITS_A_TURN, Reference

#: Turns until mailboxes have as many messages in memory as they ever have, and the interpreter has specialised the code.
WARM_UP: Final = 20
#: The name of the reference among the scenarios.
REFERENCE: Final = "reference"
#: As the worker sets the garbage collector (``workers.__main__``).
_YOUNG: Final = 10_000
_OLDER: Final = 4
_NEVER: Final = 1_000_000_000


class Stretch(NamedTuple):
    """What a scenario's process has done: `messages` between the last two of three checkpoints, nothing between the first two."""

    name: str
    messages: int
    checkpoints: list[int]


def serve(scenarios: Mapping[str, Build], turns: int, names: list[str]) -> None:
    """Run `turns` turns of each of those scenarios, in a process of its own."""
    assert UNITS_A_TURN == MESSAGES_A_TURN, "the reference is counted like a scenario"
    for name in names:
        child = os.fork()
        if child == 0:
            stretch = _run(name, scenarios[name], turns)
            print(json.dumps(stretch), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"{name!r} has failed; see above")


def _run(name: str, build: Build, turns: int) -> Stretch:
    workload = build(WARM_UP + turns)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _NEVER)
    for _ in range(WARM_UP):
        workload.turn()
    before = workload.written
    checkpoints = [_checkpoint(), _checkpoint()]
    for _ in range(turns):
        workload.turn()
    checkpoints.append(_checkpoint())
    messages = turns * MESSAGES_A_TURN
    written, expected = workload.written - before, messages * workload.written_each
    if written != expected:
        print(f"{name!r} has written {written} frames or rows instead of {expected}", file=sys.stderr)
        os._exit(1)
    return Stretch(name, messages, checkpoints)


def _checkpoint() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


if __name__ == "__main__":
    serve({REFERENCE: Reference, **SCENARIOS}, int(sys.argv[1]), sys.argv[2:])
