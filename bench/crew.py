"""Several processes of chatting pairs, since one client core may not be enough; and what a run with them came to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, Final

import uvloop
from hdrh.histogram import HdrHistogram

from bench.chatter import Chatter, new_histogram

#: Seconds that a crew member has to connect its pairs, and more than a load lasts to have it over.
_PATIENCE: Final = 120.0


@dataclass
class Outcome:
    """What a load came to, of all processes; times in microseconds."""

    messages: int = 0
    seconds: float = 0.0
    to_ack: HdrHistogram = field(default_factory=new_histogram)
    to_delivery: HdrHistogram = field(default_factory=new_histogram)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def latencies(name: str, histogram: HdrHistogram) -> dict[str, Any]:
    """Percentiles in milliseconds."""
    wanted = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
    return {
        f"{name}_{label}_ms": histogram.get_value_at_percentile(percent) / 1000
        for label, percent in wanted.items()
    }


class Crew:
    """Processes with connected pairs, which do the same at the same time."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def chat(self, load: str, seconds: float) -> Outcome:
        """Chat for some time: ``window 8`` is a closed loop, ``rate 5000`` an open one, in messages a second of all together."""
        outcome = Outcome()
        kind, amount = load.split()
        share = float(amount) / len(self._pipes) if kind == "rate" else float(amount)
        for pipe in self._pipes:
            pipe.send((kind, share, seconds))
        for pipe in self._pipes:
            messages, took, acks, deliveries = _answer(pipe, seconds + _PATIENCE)
            outcome.seconds = max(outcome.seconds, took)
            outcome.messages += messages
            outcome.to_ack.decode_and_add(acks)
            outcome.to_delivery.decode_and_add(deliveries)
        return outcome


@contextmanager
def crew(url: str, pairs: int, processes: int = 1, workers: int = 1, where: str = "same") -> Iterator[Crew]:
    """Start the processes and connect the pairs, `pairs` in all; end them. See `Chatter` for `workers` and `where`."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    members: list[Any] = []
    try:
        for index in range(processes):
            ours, theirs = context.Pipe()
            share = pairs // processes + (index < pairs % processes)
            member = context.Process(target=_serve, args=(theirs, url, share, workers, where), daemon=True)
            member.start()
            theirs.close()
            pipes.append(ours)
            members.append(member)
        for pipe in pipes:
            _answer(pipe, _PATIENCE)
        yield Crew(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for member in members:
            member.join(_PATIENCE)


def _answer(pipe: Connection, patience: float) -> Any:
    if not pipe.poll(patience):
        raise RuntimeError(f"a process of the load did not answer within {patience:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise RuntimeError("a process of the load has ended; see above") from None
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


# -- In the processes --


def _serve(pipe: Connection, url: str, pairs: int, workers: int, where: str) -> None:
    uvloop.run(_chat_for(pipe, url, pairs, workers, where))


async def _chat_for(pipe: Connection, url: str, pairs: int, workers: int, where: str) -> None:
    """Do what the pipe says, and answer; what goes wrong is an answer as well. Nothing else happens meanwhile, so waiting may block."""
    chatter = Chatter(url, pairs, workers, where)
    try:
        await chatter.connect()
        pipe.send(())
        while True:
            kind, amount, seconds = pipe.recv()
            chatter.forget()
            began = perf_counter()
            if kind == "window":
                await chatter.closed_loop(int(amount), seconds)
            else:
                await chatter.open_loop(amount, seconds)
            took = perf_counter() - began
            pipe.send((chatter.acks, took, _packed(chatter.to_ack), _packed(chatter.to_delivery)))
    except EOFError:
        await chatter.close()
    except (OSError, RuntimeError, TimeoutError) as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _packed(microseconds: list[int]) -> bytes:
    histogram = new_histogram()
    record: Callable[[int], Any] = histogram.record_value
    for value in microseconds:
        record(max(1, value))
    encoded: bytes = histogram.encode()
    return encoded
