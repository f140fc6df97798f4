"""Reload after reload while people chat: nothing of the processes that have gone is left, and what the server needs does not grow.

``RELOADS=100 pytest -s -k many_reloads`` reloads more often; the test prints what it has measured.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.system.company import chatting, come_to_rest
from tests.system.harness import Server, processes, run_async, user_on_worker, wait_until
from tests.system.ledger import Ledger
from tests.system.status import status
from tests.system.talker import Manners, Talker
from tests.system.test_reload import PATIENCE, reload_well

WORKERS: Final = 2
FRONTS: Final = 1
USERS: Final = 6
#: Seconds between two messages of one user, on average.
PACE: Final = 0.1
#: How many reloads there are, at least 6.
RELOADS: Final = int(os.environ.get("RELOADS") or 30)
#: What is needed after so many reloads is what may be needed later: pages and caches are warm.
WARM: Final = 5
#: Seconds that processes which were replaced may take to end.
END_PATIENCE: Final = 60.0
#: The memory that one process may have more at the end than after the first reloads, as a factor and in bytes beyond it.
GROWTH: Final = 1.25
SLACK: Final = 16 * 2**20
#: Seconds for one reload on a busy machine, on average, and for all else.
RELOAD_PATIENCE: Final = 10.0
REST_PATIENCE: Final = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(REST_PATIENCE + RELOAD_PATIENCE * RELOADS)]


class Needs(NamedTuple):
    """What the processes of a server need, by title."""

    descriptors: dict[str, int]
    threads: dict[str, int]
    #: Proportional set size in bytes: pages that several processes share count in parts.
    memory: dict[str, int]
    #: Entries of the run directory, without the numbers of generations.
    files: int

    def grows_beyond(self, earlier: Needs) -> bool:
        """Whether there is more of what can be counted exactly."""
        return (
            self.descriptors.keys() != earlier.descriptors.keys()
            or any(number > earlier.descriptors[title] for title, number in self.descriptors.items())
            or any(number > earlier.threads[title] for title, number in self.threads.items())
            or self.files > earlier.files
        )


def needs(server: Server, run_directory: Path) -> Needs:
    """Measure; a process that two titles would stand for is not to be there any more."""
    found = {title.removeprefix("fastchat: "): pid for pid, title in server.children().items()}
    found["supervisor"] = server.pid
    return Needs(
        {title: len(os.listdir(f"/proc/{pid}/fd")) for title, pid in found.items()},
        {title: len(os.listdir(f"/proc/{pid}/task")) for title, pid in found.items()},
        {title: proportional_set_size(pid) for title, pid in found.items()},
        sum(1 for _ in run_directory.rglob("*")),
    )


def proportional_set_size(pid: int) -> int:
    """Of a process, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def settle(server: Server) -> None:
    """Wait until nobody is there but those who serve, zombies included."""
    wait_until(
        lambda: len(server.children()) == WORKERS + FRONTS, "the replaced processes to end", END_PATIENCE
    )
    wait_until(lambda: not zombies(server.pid), "the replaced processes to be reaped", END_PATIENCE)


def zombies(parent: int) -> set[int]:
    """The children of a process that have ended and were not waited for."""
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return set(map(int, file.read().split())) - processes().keys()


def reload_many_times(server: Server) -> tuple[Needs, Needs]:
    """Reload; what was needed after the first times, and at the end."""
    run_directory = Path(status(server)["settings"]["run_dir"])
    for _ in range(WARM):
        reload_well(server)
    settle(server)
    early = needs(server, run_directory)
    for _ in range(RELOADS - WARM):
        reload_well(server)
    settle(server)
    late = [needs(server, run_directory)]

    def is_back() -> bool:
        late[0] = needs(server, run_directory)
        return not late[0].grows_beyond(early)

    try:
        wait_until(is_back, "the needs to be those of before", END_PATIENCE)
    finally:
        print(f"after {WARM} reloads: {early}\nafter {RELOADS} reloads: {late[0]}")
    return early, late[0]


@run_async
async def test_many_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    ledger, dice = Ledger(), random.Random(2)
    users = [user_on_worker(number % WORKERS, WORKERS) for number in range(USERS)]
    talkers = [
        Talker(user, [peer for peer in users if peer != user][:3], Manners(resumes=True), ledger, dice, PACE)
        for user in users
    ]
    with Server(tmp_path, workers=WORKERS, fronts=FRONTS) as server:
        async with chatting(talkers, server.url, PATIENCE):
            early, late = await asyncio.to_thread(reload_many_times, server)
            replaced = [process["replaced"] for process in status(server)["processes"]]
            await come_to_rest(ledger, talkers, PATIENCE)
    figures = ledger.figures()
    print(figures)
    assert ledger.problems() == []
    assert figures["connections"] == len(talkers), "nobody had to reconnect"
    assert figures["sent"] == figures["messages"] == figures["acknowledged"] > 0
    assert replaced == [RELOADS] * (WORKERS + FRONTS)
    for title, size in late.memory.items():
        assert size <= early.memory[title] * GROWTH + SLACK, f"{title}: {early.memory[title]} -> {size} bytes"
