"""Load that saturates a server, and what it cost: one JSON line a run. ``python -m bench.driver chat --store fsync --load "window 8"``.

Each scenario starts a server of its own, with all that is on by default, and counts the CPU and memory of all of its processes:

    chat    pairs who chat: `window N` keeps N messages of each sender unacknowledged, `rate N` sends N a second whatever comes back
    idle    connections that have said HELLO and nothing since: bytes of memory for each, and how much comes back when they leave
    storm   clients that all connect at once
    churn   users online with their chats, some of whom come and go each second: what presence costs
    fan-in  one user who never reads, written to by many, beside pairs who chat
    reload  pairs who chat while all processes are replaced, and before: no connection may end, and each message is answered
    resize  the same while the number of workers changes, 2 -> 5 -> 1 -> 4 -> 2, with many messages stored
    crash   workers and fronts are killed, one after the other: how long until everybody is served again
    api     pairs who chat while a backend imports users, and then sends messages, through the server API

CPU is in microseconds for each message (which is delivered once and acknowledged once), times are in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque
from collections.abc import Callable
from inspect import signature
from statistics import median
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from bench.backends import api
from bench.chatter import WHERE
from bench.crew import Outcome, crew, latencies
from bench.crowd import Crowd, text_frame
from bench.replacing import crash, reload, resize
from bench.servers import STORES, Server, serving
from core.measures import SECONDS, quantile

Result = dict[str, Any]

#: Seconds before each measurement, for caches and the pacing of commits to come to what they will be.
WARM_UP: Final = 1.0
#: Seconds between two reports of a worker.
_REPORT: Final = 1.0
#: Seconds for memory that is going to be given back to be so, and for presence to come to rest.
_SETTLING: Final = 7.0
#: Seconds between two looks at what came to a crowd.
_PAUSE: Final = 0.02
#: Clients of a crowd that do something at the same time.
_AT_ONCE: Final = 250
#: Seconds that a user of `churn` stays away: more than the grace within which a leave is not announced.
_AWAY: Final = 8
#: Bytes of a reader that the kernel keeps when it does not read.
_SMALL: Final = 4096
_TEXT: Final = "Are you coming to the station tonight? The train leaves at seven."

_CHOICES: Final[dict[str, Any]] = {"store": tuple(STORES), "core": ("pure", "compiled"), "where": WHERE}


class Reports:
    """What the first worker of a server reports while it is measured, once a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reports: list[dict[str, Any]] = []
        self._over = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._reports.append(self._server.stats())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def summary(self) -> Result:
        """Return the longest turns of the event loop in each second: the median and the longest; and how long commits took."""
        turns = [report["longest_turn_seconds"] * 1000 for report in self._reports[1:] or self._reports]
        commits = self._total("store_commits_total")
        return {
            "turn_ms": median(turns),
            "turn_max_ms": max(turns),
            "commit_p50_ms": self._commit_ms(0.5),
            "commit_p99_ms": self._commit_ms(0.99),
            "rows_a_commit": self._total("store_rows_total") / commits if commits else 0.0,
        }

    def _total(self, name: str) -> float:
        total: float = self._reports[-1].get(name, 0.0) - self._reports[0].get(name, 0.0)
        return total

    def _commit_ms(self, share: float) -> float:
        none = {"counts": [0] * (len(SECONDS) + 1)}
        first, last = (
            report.get("commit_seconds", none)["counts"] for report in (self._reports[0], self._reports[-1])
        )
        return (
            quantile(SECONDS, [after - before for before, after in zip(first, last, strict=True)], share)
            * 1000
        )

    def _watch(self) -> None:
        while not self._over.wait(_REPORT):
            self._reports.append(self._server.stats())


def chat(
    store: str = "memory",
    load: str = "window 8",
    seconds: float = 5.0,
    *,
    pairs: int = 50,
    workers: int = 1,
    where: str = "same",
    core: str = "pure",
    processes: int = 1,
) -> Result:
    """Pairs who chat."""
    with (
        serving(store, workers, compiled=core == "compiled") as server,
        crew(server.url, pairs, processes, workers, where) as members,
    ):
        members.chat(load, WARM_UP)
        before = {kind: server.cpu(kind) for kind in ("", "worker")}
        with Reports(server) as reports:
            outcome = members.chat(load, seconds)
            used = {kind: server.cpu(kind) - started for kind, started in before.items()}
        return {
            "store": store,
            "core": core,
            "workers": workers,
            "where": where,
            "pairs": pairs,
            **summary(load, outcome, used["worker"]),
            "all_cpu_us": used[""] / outcome.messages * 1e6,
            **reports.summary(),
            "resident_mib": server.resident() / 2**20,
        }


def _closed_as_too_slow(server: Server) -> int:
    """Return connections of the first worker that were closed with 1013."""
    return sum(
        count
        for name, count in server.stats().items()
        if name.startswith('closes_total{by="server",code="1013"')
    )


def summary(load: str, outcome: Outcome, cpu: float) -> Result:
    """Return what a load came to, for which a server computed `cpu` seconds."""
    return {
        "load": load,
        "messages": outcome.messages,
        "rate": outcome.rate,
        "cpu_us": cpu / outcome.messages * 1e6,
        "cores": cpu / outcome.seconds,
        **latencies("ack", outcome.to_ack),
        **latencies("delivery", outcome.to_delivery),
    }


def idle(
    connections: int = 10_000,
    workers: int = 2,
    store: str = "memory",
    core: str = "pure",
    patience: float = _SETTLING,
) -> Result:
    """Measure connections that have said HELLO; and `patience` seconds after they have left."""
    with serving(store, workers, compiled=core == "compiled") as server:
        crowd = Crowd(server.url, [str(uuid4()) for _ in range(connections)])
        empty = server.resident()
        for start in range(0, connections, _AT_ONCE):
            crowd.connect(range(start, min(start + _AT_ONCE, connections)))
        sleep(_SETTLING)
        crowd.drain()
        full = server.resident()
        crowd.leave_all()
        sleep(patience)
        left = server.resident()
        return {
            "store": store,
            "core": core,
            "workers": workers,
            "connections": connections,
            "bytes_each": (full - empty) / connections,
            "given_back": (full - left) / (full - empty),
        }


def storm(connections: int = 10_000, workers: int = 2, fronts: int = 1, store: str = "memory") -> Result:
    """Clients that all connect at once, and do so again when all have been cut off."""
    with serving(store, workers, FRONTS=str(fronts)) as server:
        crowd = Crowd(server.url, [str(uuid4()) for _ in range(connections)])
        everybody = range(connections)
        results = {}
        for name in ("connect", "reconnect"):
            before = {kind: server.cpu(kind) for kind in ("front", "worker")}
            times = sorted(crowd.connect(everybody))
            results[f"{name}_s"] = times[-1]
            results[f"{name}_p50_s"] = median(times)
            for kind, started in before.items():
                results[f"{name}_{kind}_cpu_us"] = (server.cpu(kind) - started) / connections * 1e6
            crowd.leave_all()
            sleep(1.0)
        return {"store": store, "workers": workers, "fronts": fronts, "connections": connections, **results}


def churn(
    users: int = 10_000,
    chats: int = 20,
    changes: int = 100,
    seconds: float = 10.0,
    *,
    workers: int = 2,
    store: str = "memory",
) -> Result:
    """Users online, some of whom leave and as many come each second: cores used with their chats, without them, and when nobody moves."""
    return {
        "store": store,
        "workers": workers,
        "users": users,
        "chats": chats,
        "changes": changes,
        **{
            f"{name}_cores": value
            for had in (0, chats)
            for name, value in _churn(users, had, changes, seconds, workers, store).items()
        },
    }


def _churn(
    users: int, chats: int, changes: int, seconds: float, workers: int, store: str
) -> dict[str, float]:
    """See `churn`. Each user has a chat with the next ones in a ring, and so with as many before."""
    away = int(changes * _AWAY)
    with serving(store, workers) as server:
        crowd = Crowd(server.url, [str(uuid4()) for _ in range(users + away)])
        everybody = range(users + away)
        for start in range(0, users + away, _AT_ONCE):
            crowd.connect(everybody[start : start + _AT_ONCE])
        for step in range(1, chats // 2 + 1):
            for start in range(0, users + away, _AT_ONCE):
                opening = {
                    index: text_frame(
                        "OPEN_CHAT",
                        target_user_id=crowd.users[(index + step) % len(everybody)],
                        target_display_name="Somebody",
                    )
                    for index in everybody[start : start + _AT_ONCE]
                }
                crowd.exchange(opening, b'"CHAT_OPENED"')
                crowd.drain()
        gone = deque(random.sample(everybody, away))
        present = deque(index for index in everybody if index not in set(gone))
        random.shuffle(present)
        crowd.leave(gone)
        _pass(crowd, _SETTLING)
        before = server.cpu()
        _pass(crowd, seconds)
        quiet = (server.cpu() - before) / seconds
        before, began, moved = server.cpu(), monotonic(), 0
        while (elapsed := monotonic() - began) < seconds:
            while moved < elapsed * changes:
                crowd.connect([gone[0]])
                present.append(gone.popleft())
                crowd.leave([present[0]])
                gone.append(present.popleft())
                moved += 1
            crowd.drain()
            sleep(_PAUSE)
        return {f"quiet_{chats}": quiet, f"moving_{chats}": (server.cpu() - before) / (monotonic() - began)}


def _pass(crowd: Crowd, seconds: float) -> None:
    """Let time pass, reading what comes."""
    end = monotonic() + seconds
    while monotonic() < end:
        crowd.drain()
        sleep(_PAUSE)


def fan_in(
    senders: int = 100,
    rate: float = 2000.0,
    pairs: int = 25,
    pairs_rate: float = 2000.0,
    seconds: float = 10.0,
    store: str = "memory",
) -> Result:
    """Measure a user who never reads and gets `rate` messages a second, and what pairs who chat beside that notice."""
    result: Result = {"store": store, "senders": senders, "written_rate": rate}
    with serving(store) as server, crew(server.url, pairs) as members:
        load = f"rate {pairs_rate:g}"
        members.chat(load, WARM_UP)
        before = members.chat(load, seconds)
        crowd = Crowd(server.url, [str(uuid4()) for _ in range(senders + 1)])
        crowd.connect(range(senders))
        crowd.connect([senders], receive_buffer=_SMALL)
        victim = crowd.users[senders]
        opening = text_frame("OPEN_CHAT", target_user_id=victim, target_display_name="Victim")
        crowd.exchange(dict.fromkeys(range(senders), opening), b'"CHAT_OPENED"')
        resident = server.resident()
        closed_before = _closed_as_too_slow(server)
        over, written = Event(), 0

        def write() -> None:
            nonlocal written
            began = monotonic()
            while not over.wait(_PAUSE):
                while written < (monotonic() - began) * rate:
                    frame = text_frame("MSG", to=victim, content=_TEXT, message_id=str(written))
                    crowd.send(written % senders, frame)
                    written += 1
                crowd.drain(range(senders))

        thread = Thread(target=write)
        thread.start()
        during = members.chat(load, seconds)
        over.set()
        thread.join()
        result |= {
            "written": written,
            "before_p99_ms": latencies("", before.to_delivery)["_p99_ms"],
            "during_p99_ms": latencies("", during.to_delivery)["_p99_ms"],
            "resident_growth_mib": (server.resident() - resident) / 2**20,
        }
        sleep(2 * _REPORT)
        result["closed_with_1013"] = _closed_as_too_slow(server) - closed_before
        crowd.leave([senders])
        hello = text_frame("HELLO", user_id=victim, display_name="Victim")
        result["redelivered"] = crowd.count(senders, hello, b'"type":"MSG"', written)
    return result


SCENARIOS: Final[dict[str, Callable[..., Result]]] = {
    "chat": chat,
    "idle": idle,
    "storm": storm,
    "churn": churn,
    "fan-in": fan_in,
    "reload": reload,
    "resize": resize,
    "crash": crash,
    "api": api,
}


def main() -> None:
    """Run one scenario, as often as asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.driver",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")
    for name, function in SCENARIOS.items():
        scenario = scenarios.add_parser(name, help=function.__doc__)
        scenario.add_argument("--rounds", type=int, default=1, help="how often; each is a server of its own")
        for parameter in signature(function).parameters.values():
            scenario.add_argument(
                f"--{parameter.name.replace('_', '-')}",
                type=type(parameter.default),
                default=parameter.default,
                choices=_CHOICES.get(parameter.name),
                help=f"(default {parameter.default})",
            )
    arguments = vars(parser.parse_args())
    scenario, rounds = arguments.pop("scenario"), arguments.pop("rounds")
    for _ in range(rounds):
        result = SCENARIOS[scenario](**arguments)
        print(json.dumps({"scenario": scenario, **_rounded(result)}), flush=True)


def _rounded(result: Result) -> Result:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}


if __name__ == "__main__":
    main()
