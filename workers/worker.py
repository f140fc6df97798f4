"""A worker process: puts shard, bus, store, connections and hand-over together, and runs them on one event loop."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.auth.tokens import load_verifier
from core.chat.ports import HookOutcome, WaitingCall
from core.chat.shard import Shard
from core.chat.stalls import Stalls
from core.events import fields
from core.process.capacity import MIB, Capacity
from core.process.cgroups import usable_memory
from core.process.child import ControlPipe, reload_keys
from core.process.control import (
    ANSWER,
    ASK,
    DRAIN,
    READY,
    RELOAD_KEYS,
    RESTART_REASON,
    STATS,
    STAYS,
    STOP,
    SUCCEED,
    WORKER_GONE,
    WORKER_SUCCEEDED,
)
from core.process.settings import Settings
from core.wire.protocol import CloseCode
from core.wire.timestamps import format_timestamp
from workers.address_counts import AddressCounts, needed
from workers.bus import ZmqBus, remove_left_over
from workers.chance import SystemChance
from workers.connection import Connection
from workers.connections import Connections
from workers.entrance import Entrance
from workers.gathering import Gathering
from workers.limits_file import read_limits, write_limits
from workers.memory_ceiling import MemoryCeiling
from workers.predecessor import Predecessor
from workers.resizing import Resizing
from workers.rest import Stays
from workers.store.data_directory import next_shard_file, shard_file
from workers.store.memory import MemoryStore
from workers.store.shard_store import ShardStore
from workers.store.sqlite import SqliteStore
from workers.successor import Successor
from workers.turn import Turn

if TYPE_CHECKING:
    from workers.hook import HookClient

_log = logging.getLogger("fastchat.worker")

#: Seconds between two looks at what happens by the passing of time.
_TICK: Final = 0.1
#: Seconds between two reports to the supervisor.
_STATS_INTERVAL: Final = 1.0
#: Seconds that clients have to close after they were told that the server stops.
_STOP_PATIENCE: Final = 2.0
#: Seconds that the store has to commit what the last connections have left. Together with them it is less than the supervisor waits.
_STORE_PATIENCE: Final = 2.0


class SystemClock:
    """Implements ``core.chat.ports.Clock``."""

    def __init__(self) -> None:
        #: The last millisecond that was asked for, since 1970, and its timestamp: a busy server asks often within one.
        self._millisecond = -1
        self._timestamp = b""

    def timestamp(self) -> bytes:
        """Return UTC in ISO 8601 with milliseconds and Z, 24 bytes."""
        millisecond = time.time_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond, self._timestamp = millisecond, format_timestamp(millisecond)
        return self._timestamp

    def seconds(self) -> float:
        """Return the same in seconds since 1970."""
        return time.time()


class Worker:
    """The composition root."""

    def __init__(
        self,
        settings: Settings,
        index: int,
        generations: Sequence[int],
        control: ControlPipe,
        connection_type: type[Connection] = Connection,
        keep: Path | None = None,
        *,
        succeeds: int | None = None,
        gathers: int | None = None,
    ) -> None:
        """Open the bus, and the store unless it is another process's still.

        That is so when this process `succeeds` another one, the one of that generation; or when it `gathers` its users from the processes
        of so many workers, which are replaced by another number. `generations` are those of the processes of all workers. `keep` is where
        to leave what counts against limits, None for nowhere. Raises ConfigurationError or OSError when what they need can't be used.
        """
        assert settings.run_dir is not None, "the supervisor fills it in"
        run_dir = str(settings.run_dir)
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._stopped: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self.turn = Turn(self._loop)
        takes_over = succeeds is not None or gathers is not None
        if gathers is None:
            remove_left_over(run_dir, index, succeeds)
        self._bus = ZmqBus(run_dir, index, generations)
        self._store = self._new_store(settings, index, shard_file if gathers is None else next_shard_file)
        self._settings = settings
        tokens = load_verifier(settings, Path.read_bytes)
        self._hook = self._new_hook(settings)
        #: Answers of the hook that came while this process is at rest.
        self._hook_answers: list[tuple[WaitingCall, HookOutcome]] = []
        self.shard = Shard(
            index,
            generations[index],
            settings,
            self._bus,
            self._store,
            SystemClock(),
            SystemChance(),
            tokens,
            self._hook,
        )
        self._keep = keep
        if keep is not None and not takes_over:
            self.shard.remember_limits(read_limits(keep), time.monotonic())
        counts = AddressCounts(run_dir, index) if needed(settings) else None
        self._store.listen(self.shard.listeners)
        if takes_over:
            self._store.prepare_start()
        else:
            self._store.start()
        self.turn.attach(self._end_turn, self.shard.written)
        capacity = Capacity(usable_memory(), settings.fronts)
        memory = MemoryCeiling(settings.worker_memory_mib * MIB or capacity.ceiling(settings.workers))
        self._connections = Connections(self.shard, self.turn, memory, counts, connection_type)
        self._entrance = Entrance(run_dir, index, self._bus, counts, self._connections)
        self._successor: Successor | Gathering | None = None
        if succeeds is not None:
            self._successor = Successor(
                run_dir, self.shard, self._store, self.turn, self._connections, self._control
            )
        elif gathers is not None:
            self._successor = Gathering(
                run_dir, gathers, self.shard, self._store, self.turn, self._connections, self._control
            )
        self._resizing = Resizing(
            self,
            self._entrance,
            self.shard,
            self._store,
            self._bus,
            self.turn,
            self._connections,
            self._control,
        )
        #: This process, as it leaves.
        self._predecessor: Predecessor | None = None
        self._leaving: asyncio.Task[None] | None = None
        #: Other workers whose processes are replaced -> the generation of the process that is to be sent to.
        self._moving_on: dict[int, int] = {}
        self._next_stats = 0.0
        self._stalls = Stalls(_TICK)
        #: How many other workers had not been heard, and whether all clients have gone in a drain, when that was reported last.
        self._reported = (-1, False)
        #: Whether everything is another process's.
        self._handed_on = False

    def _new_hook(self, settings: Settings) -> HookClient | None:
        if not settings.hook_url:
            return None
        # Only here, since its library takes memory that most servers have a better use for.
        from workers.hook import HookClient

        return HookClient(settings, self._hook_answered)

    def _new_store(
        self, settings: Settings, index: int, file: Callable[[Path, int, int], Path]
    ) -> ShardStore:
        if settings.store == "memory":
            return MemoryStore(settings)
        path = file(settings.data_dir, index, settings.workers)
        return SqliteStore(path, settings, self._loop, self.turn.schedule)

    async def run(self) -> None:
        """Serve until told to stop. Raises OSError when the hand-over endpoint can't be opened."""
        loop = self._loop
        loop.add_signal_handler(signal.SIGTERM, self._stop, CloseCode.RESTARTING, RESTART_REASON)
        self._control.listen(
            loop.add_reader,
            {
                STOP: lambda message: self._stop(message["code"], message["reason"]),
                DRAIN: lambda message: self._connections.drain(message["seconds"]),
                RELOAD_KEYS: lambda _: self._reload_keys(),
                WORKER_GONE: self._worker_gone,
                WORKER_SUCCEEDED: self._worker_succeeded,
                SUCCEED: self._succeed,
                ASK: self._answer_operator,
                **self._resizing.handlers(),
            },
        )
        if self._successor is not None:
            await self._successor.take_over()
        self._bus.listen(loop, self._receive_envelope)
        self.shard.start()
        self.turn.schedule()
        await self._entrance.open()
        self._tick()
        self._control.send(READY)
        code, reason = await self._stopped
        self._entrance.close()
        if self._handed_on:
            await self._connections.ended(_STOP_PATIENCE)
            self._bus.close()
        else:
            await self._close_all(code, reason)
        if self._hook is not None:
            await self._hook.close()

    def _end_turn(self, now: float) -> bool:
        """See ``workers.turn``."""
        if self._successor is not None and not self._successor.has_store:
            return False
        more = False
        if not self._resizing.at_rest:
            more = self._connections.rounds.serve(now)
        more |= self.shard.end_turn(now)
        return more

    def _tick(self) -> None:
        if self._handed_on:
            return
        self._loop.call_later(_TICK, self._tick)  # first of all, since time must go on whatever happens below
        now = time.monotonic()
        self._control.beat(now)
        seconds = self._stalls.beat(now)
        if seconds:
            self._stood_still(seconds, now)
        if not self._resizing.at_rest:
            answers, self._hook_answers = self._hook_answers, []
            for call, outcome in answers:
                self.shard.hook_calls.answered(call, outcome, now)
            self.shard.tick(now)
            self._connections.tick(now)
        self.turn.schedule()
        for worker, generation in list(self._moving_on.items()):
            self._move_on(worker, generation)
        self._entrance.tick()
        news = self.shard.unheard, self._connections.drained
        if now >= self._next_stats or news != self._reported:
            # The server is not ready before everybody has heard everybody, nor drained before all have gone, so that news does not wait.
            self._reported = news
            self._next_stats = now + _STATS_INTERVAL
            self._connections.sample(now)
            self._control.send(STATS, stats=self._stats())

    def _stood_still(self, seconds: float, now: float) -> None:
        _log.warning(
            "this worker stood still: everybody gets that time back", extra=fields(seconds=round(seconds, 1))
        )
        self.shard.stood_still(seconds, now)
        self._connections.stood_still(seconds, now)

    def _stats(self) -> dict[str, Any]:
        """Return all that is measured here, by the names of ``core.process.metrics``."""
        return {
            **self._entrance.stats(),
            "takeover_seconds": self._successor.pause if self._successor is not None else 0.0,
            **self._connections.stats(),
            **self.turn.stats(),
            **self._bus.stats(),
            **self._store.stats(),
            **self.shard.stats(),
        }

    # -- What others say --

    def _receive_envelope(self, envelope: bytes, now: float) -> None:
        try:
            self.shard.receive_envelope(envelope, now)
        except Exception:
            self.shard.counters["bus_errors_total"] += 1
            _log.exception("bug, or an envelope that can't be read")
        self.turn.schedule()

    def _worker_gone(self, message: dict[str, Any]) -> None:
        worker, now = message["worker"], time.monotonic()
        self._moving_on.pop(worker, None)
        if not self._stopped.done():
            unsent = self._bus.connect(worker, message["next"])
            if unsent is not None:
                self.shard.send_again(worker, unsent)
            self.shard.worker_gone(worker, message["generation"], now)
        if self._predecessor is not None:
            self._predecessor.worker_gone(worker)
        self.turn.schedule()

    def _worker_succeeded(self, message: dict[str, Any]) -> None:
        self._move_on(message["worker"], message["generation"])

    def _move_on(self, worker: int, generation: int) -> None:
        if self._bus.move_on(worker, generation):
            self._moving_on.pop(worker, None)
        else:
            self._moving_on[worker] = generation

    def _answer_operator(self, message: dict[str, Any]) -> None:
        tell = partial(self._answer, message["id"])
        self.shard.operator.answer(message["what"], message, tell, time.monotonic())
        self.turn.schedule()

    def _load_keys(self) -> None:
        self.shard.use_tokens(load_verifier(self._settings, Path.read_bytes))

    def _reload_keys(self) -> None:
        reload_keys(self._load_keys, _log)
        if self._hook is not None:
            reload_keys(self._hook.reload_secrets, _log)

    def _hook_answered(self, call: WaitingCall, outcome: HookOutcome) -> None:
        if self._handed_on:
            return  # the next process repeats the call
        if self._resizing.at_rest:
            self._hook_answers.append((call, outcome))
            return
        self.shard.hook_calls.answered(call, outcome, time.monotonic())
        self.turn.schedule()

    def _answer(self, number: int, told: dict[str, Any]) -> None:
        self._control.send(ANSWER, id=number, answer=told)

    # -- Leaving --

    def _succeed(self, message: dict[str, Any]) -> None:
        if self._leaving is None and not self._stopped.done():
            self._leaving = self._loop.create_task(self._leave(message["path"]))

    async def _leave(self, path: str) -> None:
        """Give everything to the process that waits at `path`; or go on serving, and say why."""
        predecessor = Predecessor(
            self.shard, self._store, self._bus, self.turn, self._connections, self._control
        )
        try:
            await predecessor.rest.come()
            self._predecessor = predecessor
            await predecessor.finish()
        except Exception as problem:
            if not isinstance(problem, Stays):
                _log.exception("bug while this process was to be replaced: it goes on")
            self._predecessor = self._leaving = None
            predecessor.stay(self._receive_envelope)
            self._control.send(STAYS, reason=str(problem))
            return
        self.give_up_place()
        try:
            await predecessor.hand_on(path)
        except Exception as error:
            _log.error(
                "the process that was to take the place of this one has failed",
                extra=fields(reason=str(error)),
                exc_info=not isinstance(error, OSError),  # anything else is a bug
            )
            predecessor.say_goodbye()
            self._store.close(_STORE_PATIENCE)
        self.leave()

    def give_up_place(self) -> None:
        """See ``workers.resizing.Host``, as the one below."""
        self._entrance.close()
        self._handed_on = True
        self._control.send(STATS, stats=self._stats())  # nothing is counted here any more

    def leave(self) -> None:
        self._stop(CloseCode.RESTARTING, RESTART_REASON)

    # -- Stopping --

    def _stop(self, code: int, reason: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result((code, reason))

    async def _close_all(self, code: int, reason: str) -> None:
        await self._connections.close_all(code, reason, _STOP_PATIENCE)
        # What it commits at last is still answered to the other shards.
        self._store.close(_STORE_PATIENCE)
        self._bus.close()
        if self._keep is not None:
            write_limits(self._keep, self.shard.index, self.shard.kept_limits(time.monotonic()))
