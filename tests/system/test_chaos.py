"""Acknowledged means kept, whatever dies: D9-D13, D18, D20, D26, with workers, fronts and the supervisor killed at random moments.

The talkers and what they note are in `talker` and `ledger`, with what exactly is promised. What dies and when is thrown with a seed,
which a failure tells; ``CHAOS_SEED=1234 pytest ...`` throws the same again, though the server's part of the timing is never the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.company import chatting, fall_silent, until
from tests.system.harness import PROJECT, Server, processes, run_async, user_on_worker, wait_until
from tests.system.ledger import Ledger
from tests.system.talker import Manners, Talker

pytestmark = pytest.mark.slow

WORKERS: Final = 3
FRONTS: Final = 2
USERS: Final = 12
#: Peers that each user writes to.
PEERS: Final = 4
#: Seconds between two messages of one user, on average: with all of them about 200 messages/s.
PACE: Final = 0.06
#: What happens in the rounds, in an order that the dice decide. A worker that hangs is what brings MESSAGE_FAILED (D26).
ROUNDS: Final = (
    ["worker"] * 11
    + ["two workers"] * 2
    + ["front"] * 4
    + ["supervisor"] * 3
    + ["worker that hangs"]
    + ["clients"] * 3
    + ["reload"] * 5
)
#: Who dies in the middle of a reload, in an order that the dice decide: the process that comes, the one that goes, both, or the supervisor.
DEATHS: Final = ["successor"] * 5 + ["predecessor"] * 5 + ["both"] * 2 + ["supervisor"] * 2
#: What the new process has done by then, and seconds between that and a death, at most: it boots, or has its name and soon takes over.
STEPS: Final = {"is started": 0.8, "has its name": 0.4}
#: Who dies while the number of workers changes, in an order that the dice decide, and to how many workers it may change.
DEATHS_IN_RESIZES: Final = (
    ["old worker"] * 3
    + ["new worker"] * 3
    + ["resize"] * 2
    + ["front"] * 2
    + ["supervisor"] * 2
    + ["nobody"] * 2
)
NUMBERS: Final = (1, 2, 3, 4)
#: What has begun by then, and how a process is known by which that is seen; and seconds between that and a death, at most.
STEPS_OF_RESIZE: Final = {"the files are copied": "fastchat: resize", "new workers boot": "--gathers"}
DEATH_WITHIN: Final = 1.5
#: Seconds that a change may take.
RESIZE_PATIENCE: Final = 90.0
#: Seconds that a reload may take until it reaches a step, and between two requests for one: while another one is under way it is refused.
STEP_PATIENCE: Final = 60.0
ASK_AGAIN: Final = 3.0
#: Seconds between two rounds, at least and at most: before the dead are back, and after.
PAUSE: Final = (0.02, 0.7)
#: Seconds for which a worker hangs: until a little before or after the supervisor replaces it.
HANGS: Final = (2.5, 5.5)
#: Seconds that the end may take: requests to dead workers fail after 5 s, and are sent again.
PATIENCE: Final = 25.0
#: The end of the server's output that a failure shows.
SHOWN: Final = 4000

MANNERS: Final = (
    Manners(resumes=True),
    Manners(acknowledges=0.9),
    Manners(),
    Manners(resumes=True, acknowledges=0.8),
    Manners(acknowledges=1.0, names_sender=False),
    Manners(receipts=True),
    Manners(resumes=True, receipts=True),
    Manners(acknowledges=0.5),
)

#: What happens to a server while people chat.
Disaster = Callable[["Havoc", list[Talker], random.Random], Coroutine[Any, Any, None]]


class Havoc:
    """A server that things happen to, again and again on the same port and data."""

    def __init__(self, directory: Path, ledger: Ledger, dice: random.Random) -> None:
        self._directory = directory
        self._ledger = ledger
        self._dice = dice
        self._outputs: list[str] = []
        #: How many workers the server has been started with, or changed to.
        self.workers = WORKERS
        self.server = self._make(port=0)

    def _make(self, port: int) -> Server:
        """A server that goes whole when its supervisor is killed; ``test_takeover.py`` is about one that does not."""
        return Server(
            self._directory,
            workers=self.workers,
            fronts=FRONTS,
            host="127.0.0.1",
            port=port,
            takeover_seconds=0,
        )

    def send_signal(self, number: signal.Signals, kind: str) -> int:
        """Send it to one process of this kind, as soon as there is one; its process number."""
        found: list[tuple[int, str]] = []

        def there() -> bool:
            found[:] = [child for child in self.server.children().items() if f"fastchat: {kind}" in child[1]]
            return bool(found)

        wait_until(there, f"a {kind} to be there")
        pid, title = self._dice.choice(sorted(found))
        self._ledger.remark(f"{title} gets {number.name}")
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def reload(self) -> None:
        """Have all processes replaced; what dies next dies in the middle of that."""
        self._ledger.remark("all processes are to be replaced")
        os.kill(self.server.pid, signal.SIGHUP)

    def next_successor(self, step: str) -> dict[str, int]:
        """Have all processes replaced, until the new process of one worker has come so far; the two process numbers."""
        wait_until(self._is_whole, "all processes to be there", STEP_PATIENCE)
        title = f"fastchat: worker {self._dice.randrange(WORKERS)}"
        predecessor = self.server.child(title.removeprefix("fastchat: "))
        found: list[int] = []
        asked_at = -ASK_AGAIN

        def has_come_so_far() -> bool:
            nonlocal asked_at
            if time.monotonic() >= asked_at + ASK_AGAIN:
                self.reload()
                asked_at = time.monotonic()
            index = title.rpartition(" ")[2]
            found[:] = [
                pid
                for pid, shown in self.server.children().items()
                if pid != predecessor
                and (shown == title or (step == "is started" and f" --index {index} --generations" in shown))
            ]
            return bool(found)

        wait_until(has_come_so_far, f"a process to take the place of {title}", STEP_PATIENCE)
        return {"successor": found[0], "predecessor": predecessor}

    def _is_whole(self) -> bool:
        return sorted(self.server.children().values()) == sorted(
            [f"fastchat: worker {index}" for index in range(self.workers)]
            + [f"fastchat: front {index}" for index in range(FRONTS)]
        )

    def kill_in_resize(self, workers: int, who: str, step: str, delay: float) -> bool:
        """Change the number of workers, and kill somebody meanwhile; whether the number changed."""
        try:
            wait_until(self._is_whole, "all processes to be there", STEP_PATIENCE)
        except AssertionError:
            raise AssertionError(f"{self.workers} workers were expected: {self.server.children()}") from None
        before = self.server.children()
        self._ledger.remark(f"there are to be {workers} workers")
        command = [sys.executable, "-m", "router", "resize", str(workers), "--admin", self.server.admin_url]
        with subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as asked:
            try:
                self._kill_while(asked, before, who, step, delay)
                said = asked.communicate(timeout=RESIZE_PATIENCE)[0].decode()
            finally:
                asked.kill()
        self._ledger.remark(f"the operator reads: {said}")
        if asked.returncode == 0 and who != "supervisor":  # after which the server was started anew
            self.workers = workers
        return asked.returncode == 0

    def _kill_while(
        self, asked: subprocess.Popen[bytes], before: dict[int, str], who: str, step: str, delay: float
    ) -> None:
        def came(what: str) -> list[int]:
            """The new processes of this kind: by their command line, as long as they boot."""
            children = self.server.children().items()
            return [pid for pid, title in children if pid not in before and what in title]

        wait_until(
            lambda: bool(came(STEPS_OF_RESIZE[step])) or asked.poll() is not None,
            f"the step {step}",
            RESIZE_PATIENCE,
        )
        time.sleep(delay)  # the moment is to be any
        victims = {
            "old worker": [pid for pid, title in before.items() if "worker" in title],
            "front": [pid for pid, title in before.items() if "front" in title],
            "new worker": came("worker"),
            "resize": came("fastchat: resize"),
        }.get(who, [])
        if who == "supervisor":
            self.kill_supervisor()
        elif victims:
            self._ledger.remark(f"{who} is killed")
            with suppress(ProcessLookupError):
                os.kill(self._dice.choice(victims), signal.SIGKILL)

    def kill_in_reload(self, pair: dict[str, int], who: str) -> bool:
        """Kill one of `pair`, both, or the supervisor; whether both were there, so that it was in the middle of a replacement."""
        both_there = set(pair.values()) <= self.server.children().keys()
        self._ledger.remark(f"{who} is killed; {'both' if both_there else 'not both'} of {pair} are there")
        if who == "supervisor":
            self.kill_supervisor()
        for name, pid in pair.items():
            if who in (name, "both"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return both_there

    def kill_supervisor(self) -> None:
        """And thereby the whole server, which is then started again."""
        children = {process for process in processes().values() if process.pid in self.server.children()}
        self._ledger.remark("the supervisor is killed")
        os.kill(self.server.pid, signal.SIGKILL)
        left = {(child.pid, child.started) for child in children}
        wait_until(
            lambda: not left & {(process.pid, process.started) for process in processes().values()},
            "the children of the killed supervisor to end",
            timeout=5.0,
        )
        self.server.kill()  # what is left is make
        self._outputs.append(self.server.output())
        self.server = self._make(port=self.server.port)
        self.server.start()
        self._ledger.remark("the server is ready again")

    def output(self) -> str:
        """All that the servers have said."""
        return "".join([*self._outputs, self.server.output()])


def company(ledger: Ledger, dice: random.Random) -> list[Talker]:
    """The users, spread over the workers, each with a few peers on any of them; the first has a second device, which listens."""
    users = [user_on_worker(number % WORKERS, WORKERS) for number in range(USERS)]
    talkers = []
    for number, user_id in enumerate(users):
        peers = dice.sample([peer for peer in users if peer != user_id], PEERS)
        manners = MANNERS[number % len(MANNERS)]
        talkers.append(Talker(user_id, peers, manners, ledger, dice, PACE))
    for second in (Manners(resumes=True), Manners()):
        talkers.append(Talker(users[0], (), second, ledger, dice, PACE))
    return talkers


async def storm(havoc: Havoc, talkers: list[Talker], dice: random.Random) -> None:
    """All rounds."""
    rounds = list(ROUNDS)
    dice.shuffle(rounds)
    for kind in rounds:
        await asyncio.sleep(dice.uniform(*PAUSE))  # the moment is to be any
        match kind:
            case "clients":
                for talker in dice.sample(talkers, 4):
                    talker.cut()
            case "reload":
                havoc.reload()
            case "supervisor":
                await asyncio.to_thread(havoc.kill_supervisor)
            case "worker that hangs":
                worker = await asyncio.to_thread(havoc.send_signal, signal.SIGSTOP, "worker")
                await asyncio.sleep(dice.uniform(*HANGS))
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGCONT)
            case "two workers":
                await asyncio.to_thread(havoc.send_signal, signal.SIGKILL, "worker")
                await asyncio.to_thread(havoc.send_signal, signal.SIGKILL, "worker")
            case _:
                await asyncio.to_thread(havoc.send_signal, signal.SIGKILL, kind)


async def storm_of_reloads(havoc: Havoc, dice: random.Random) -> int:
    """One death in each reload; how many of them were in the middle of a replacement."""
    deaths = list(DEATHS)
    dice.shuffle(deaths)
    in_the_middle = 0
    for who in deaths:
        await asyncio.sleep(dice.uniform(*PAUSE))  # the moment is to be any
        step = dice.choice(sorted(STEPS))
        pair = await asyncio.to_thread(havoc.next_successor, step)
        await asyncio.sleep(dice.uniform(0.0, STEPS[step]))  # here too
        in_the_middle += await asyncio.to_thread(havoc.kill_in_reload, pair, who)
    return in_the_middle


async def storm_of_resizes(havoc: Havoc, dice: random.Random) -> int:
    """One death in each change of the number of workers; how often the number changed."""
    deaths = list(DEATHS_IN_RESIZES)
    dice.shuffle(deaths)
    changed = 0
    for who in deaths:
        await asyncio.sleep(dice.uniform(*PAUSE))  # the moment is to be any
        workers = dice.choice([number for number in NUMBERS if number != havoc.workers])
        step = dice.choice(sorted(STEPS_OF_RESIZE))
        delay = dice.uniform(0.0, DEATH_WITHIN)
        changed += await asyncio.to_thread(havoc.kill_in_resize, workers, who, step, delay)
    return changed


async def settle(ledger: Ledger, talkers: list[Talker]) -> None:
    """Let everything come to rest: nothing new, all acknowledged, everybody anew, everything there."""
    await fall_silent(talkers, PATIENCE)
    for talker in talkers:
        talker.cut()
    await until(lambda: all(talker.connected for talker in talkers), "everybody to be back", PATIENCE)
    with suppress(AssertionError):  # the ledger knows what is missing
        await until(lambda: not ledger.undelivered(), "everything to be delivered", 10.0)
    for talker in talkers:
        await talker.drain()


async def live_through(tmp_path: Path, disaster: Disaster) -> dict[str, int]:
    """Let a company chat while `disaster` goes on, and see what they have of it afterwards; the figures of their ledger."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    ledger = Ledger()
    havoc = Havoc(tmp_path, ledger, dice)
    talkers = company(ledger, dice)
    await asyncio.to_thread(havoc.server.start)
    try:
        async with chatting(talkers, havoc.server.url, PATIENCE):
            await disaster(havoc, talkers, dice)
            await settle(ledger, talkers)
        assert await asyncio.to_thread(havoc.server.stop) == 0
    finally:
        figures = ledger.figures()
        print(figures)
        problems = ledger.problems()
        if problems:
            print("\n\n".join(problems), havoc.output()[-SHOWN:], sep="\n\n")
        await asyncio.to_thread(havoc.server.kill)
    assert problems == [], "see above; CHAOS_SEED throws the same dice again"
    assert "Traceback" not in havoc.output()
    assert figures["acknowledged"] == figures["messages"] > 500
    assert figures["ordered_pairs"] > 1000
    return figures


@run_async
async def test_nothing_is_lost_repeated_or_reordered(tmp_path: Path) -> None:
    figures = await live_through(tmp_path, storm)
    # It was a storm.
    assert figures["connections"] > 5 * (USERS + 2)
    assert figures["sent"] > figures["messages"], "some were sent again"


@run_async
async def test_nothing_is_lost_when_somebody_dies_in_the_middle_of_a_reload(tmp_path: Path) -> None:
    """The process that comes, the one that goes, or the supervisor, while the new process boots or takes over."""
    in_the_middle = 0

    async def disaster(havoc: Havoc, talkers: list[Talker], dice: random.Random) -> None:
        nonlocal in_the_middle
        in_the_middle = await storm_of_reloads(havoc, dice)

    figures = await live_through(tmp_path, disaster)
    print(f"deaths in the middle of a replacement: {in_the_middle} of {len(DEATHS)}")
    assert in_the_middle > 0
    assert figures["connections"] > USERS + 2, "some had to reconnect"


@run_async
async def test_nothing_is_lost_when_somebody_dies_while_the_number_of_workers_changes(tmp_path: Path) -> None:
    """An old worker or a new one, a front, the process that copies the files, or the supervisor."""
    changed = 0

    async def disaster(havoc: Havoc, talkers: list[Talker], dice: random.Random) -> None:
        nonlocal changed
        changed = await storm_of_resizes(havoc, dice)

    figures = await live_through(tmp_path, disaster)
    print(f"changes of the number of workers: {changed} of {len(DEATHS_IN_RESIZES)}")
    assert 0 < changed < len(DEATHS_IN_RESIZES)
    assert figures["connections"] > USERS + 2, "some had to reconnect"
