"""Scenarios of ``bench.driver`` in which processes are replaced, or killed, while people chat."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from threading import Thread
from time import monotonic, sleep
from typing import Any, Final
from uuid import uuid4

from bench.crew import Crew, crew, latencies
from bench.crowd import Crowd
from bench.servers import Server, serving
from core.placement import Placement

Result = dict[str, Any]

#: Seconds before each measurement, for caches and the pacing of commits to come to what they will be.
_WARM_UP: Final = 1.0
#: Seconds between two reports of a worker.
_REPORT: Final = 1.0
#: Seconds of chatting between two looks whether enough is stored.
_FILLING: Final = 10.0
#: Seconds until the same process is killed again.
_BETWEEN_KILLS: Final = 14.0


def reload(
    pairs: int = 500,
    load: str = "rate 500",
    seconds: float = 30.0,
    reloads: int = 3,
    *,
    workers: int = 2,
    store: str = "fsync",
    core: str = "pure",
) -> Result:
    """Measure what pairs who chat notice of reloads, begun one after the other while they chat."""
    with (
        serving(store, workers, compiled=core == "compiled") as server,
        crew(server.url, pairs, 1, workers, "mixed") as members,
    ):
        members.chat(load, _WARM_UP)
        replacements = [server.reload] * reloads
        return {"store": store, "core": core, "workers": workers, "connections": 2 * pairs, "load": load} | (
            _noticed(server, members, load, seconds, replacements)
        )


def resize(
    pairs: int = 500,
    load: str = "rate 500",
    seconds: float = 60.0,
    stored: int = 1_000_000,
    *,
    store: str = "fsync",
    core: str = "pure",
) -> Result:
    """Measure what pairs who chat notice of other numbers of workers, beside so many stored messages."""
    numbers = (2, 5, 1, 4, 2)
    with (
        serving(store, numbers[0], compiled=core == "compiled") as server,
        crew(server.url, pairs, 1, numbers[0], "mixed") as members,
    ):
        written = 0
        while written < stored:
            written += members.chat("window 8", _FILLING).messages
        members.chat(load, _WARM_UP)
        replacements = [partial(server.resize, number) for number in numbers[1:]]
        return {"store": store, "core": core, "connections": 2 * pairs, "load": load, "stored": written} | (
            _noticed(server, members, load, seconds, replacements)
        )


def crash(
    users: int = 400,
    kills: int = 50,
    *,
    workers: int = 8,
    store: str = "fsync",
    core: str = "pure",
) -> Result:
    """Measure how long it takes after a kill until all users of the process have connected again, or a new one has."""
    worker_of = Placement(workers).worker_of
    with serving(store, workers, compiled=core == "compiled") as server:
        crowd = Crowd(server.url, [str(uuid4()) for _ in range(users)])
        crowd.connect(range(users))
        names = [f"worker {index}" for index in range(workers)] + ["front 0"]
        back: dict[str, list[float]] = {"worker": [], "front": []}
        for number in range(kills):
            # Long enough, for a process that dies often is started again later and later.
            sleep(_BETWEEN_KILLS / len(names))
            crowd.drain()
            name = names[number % len(names)]
            kind, _, index = name.partition(" ")
            there = [user for user in range(users) if worker_of(crowd.users[user]) == int(index)]
            those = there if kind == "worker" else there[:1]
            crowd.leave(those)
            os.kill(server.process(name), signal.SIGKILL)
            back[kind].append(max(crowd.connect(those)) * 1000)
        return {"store": store, "core": core, "workers": workers, "users": users, "kills": kills} | {
            f"{kind}_{name}_ms": value
            for kind, times in back.items()
            for name, value in (
                ("p50", median(times)),
                ("p95", sorted(times)[math.ceil(0.95 * len(times)) - 1]),
                ("max", max(times)),
            )
        }


def _noticed(
    server: Server, members: Crew, load: str, seconds: float, replacements: Sequence[Callable[[], None]]
) -> Result:
    """Return what pairs who chat notice of replacements, one after the other, beside the same without."""
    quiet = members.chat(load, seconds)
    took: list[float] = []
    pauses: list[float] = []

    def replace() -> None:
        for replacement in replacements:
            began = monotonic()
            replacement()
            took.append(monotonic() - began)
            sleep(2 * _REPORT)
            pauses.extend(each["takeover_seconds"] * 1000 for each in server.stats_of_workers())

    thread = Thread(target=replace)
    thread.start()
    during = members.chat(load, seconds)
    over_in_time = not thread.is_alive()
    thread.join()
    return {
        "replacements": len(took),
        "within_the_chat": over_in_time,
        "took_s": median(took),
        "took_max_s": max(took),
        "pause_ms": median(pauses),
        "pause_max_ms": max(pauses),
        "messages": during.messages,
        **latencies("quiet_ack", quiet.to_ack),
        "quiet_ack_max_ms": quiet.to_ack.get_max_value() / 1000,
        **latencies("ack", during.to_ack),
        "ack_max_ms": during.to_ack.get_max_value() / 1000,
    }
