"""What a worker asks of the kernel, in which order: strace, and reading what it wrote (D20).

kill -9 cannot tell what was synced from what was not, since the kernel keeps both. The order of the system calls can: a message is safe
when a sync of a log has *returned* that *began* after the commit with its row had been written there. There are two kinds of logs: the
segments of the commit log, and SQLite's write-ahead log, for what is committed in SQLite at once.

`Tracer` runs strace on processes that run already. `read_calls` makes `Call`s of its output, with the places in it where each began and
ended, which is what "before" means here: a thread goes on only when strace has seen its call end, so what happens because of that call
comes later in the output. `safe_since` looks for texts in what is written to the logs, and says from where on each of them is safe.
`frames` takes the frames out of what is written to a client.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import pytest

from tests.system.harness import processes, wait_until

#: The calls by which a worker writes to a file or a client, and by which it waits for a disk.
SYNCS: Final = frozenset({"fsync", "fdatasync"})
WRITES: Final = frozenset({"write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg"})

#: The ends of the names of SQLite's log and of the segments of the commit log: in one of them a row is when it is committed.
LOG_SUFFIX: Final = "-wal"
SEGMENT_SUFFIXES: Final = ("-log-1", "-log-2")
#: Bytes of the header before each record in a segment, and of the length of the rest in it.
_RECORD_HEADER: Final = 8
_LENGTH: Final = slice(0, 4)
#: Bytes of the header before each page in that log. Its second field is not 0 in the last page of a commit, where it says how large the
#: database is. See "File Format For SQLite Databases", 4.1.
_PAGE_HEADER: Final = 24
_COMMIT: Final = slice(4, 8)

#: How a WebSocket frame of the server's begins: text, Close, Ping, Pong. Neither ZeroMQ's frames nor a hand-over's do.
_TO_CLIENTS: Final = frozenset({b"\x81", b"\x88", b"\x89", b"\x8a"})

_LINE: Final = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_WHOLE: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?).*")
_BEGINS: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")
_ENDS: Final = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>-?\d+|\?).*")
_DESCRIPTOR: Final = re.compile(r"\d+<(?P<what>.*?)>(?:, |$)")
_STRING: Final = re.compile(r'(?P<iovec>iov_base=)?(?P<literal>"(?:[^"\\]|\\.)*")(?P<cut>\.\.\.)?')
_OFFSET: Final = re.compile(r", (?P<offset>\d+)$")


class Call(NamedTuple):
    """A system call on a descriptor. `began` and `ended` are line numbers of the trace."""

    name: str
    #: What the descriptor is: a path, or ``socket:[4711]``.
    target: str
    began: int
    ended: int
    #: What it returned; negative when it failed.
    result: int
    #: What was written, as far as it was.
    data: bytes
    #: Where in the file, for `pwrite64`; else 0.
    offset: int


class Tracer:
    """strace on running processes, all of their threads; a context manager. The trace is complete when it has ended.

    `options` go to strace. Skips the test when there is no strace or it may not trace.
    """

    def __init__(self, processes: Sequence[int], directory: Path, *options: str) -> None:
        self._processes = processes
        self._trace = directory / "trace.txt"
        self._said = directory / "strace.txt"
        self._options = options

    def __enter__(self) -> Self:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed (apt-get install strace)")
        command = ["strace", "-f", "-o", str(self._trace), *self._options]
        for process in self._processes:
            command += ["-p", str(process)]
        with self._said.open("wb") as said:
            self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
        try:
            wait_until(self._attached, "strace to attach")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def calls(self) -> list[Call]:
        """What the processes have asked of the kernel; after the end."""
        with self._trace.open(encoding="ascii") as lines:
            return list(read_calls(lines))

    def _attached(self) -> bool:
        said = self._said.read_text(errors="replace")
        if self._strace.poll() is not None:
            pytest.skip(f"strace can't trace here: {said.strip()}")
        return said.count(" attached") == len(self._processes)

    def _end(self) -> None:
        if processes().keys() & set(self._processes):
            self._strace.terminate()  # it lets go of the processes, which go on
            with suppress(subprocess.TimeoutExpired):
                self._strace.wait(10.0)
        # From a process that was killed it wants to hear again before it ends, and may wait for ever.
        self._strace.kill()
        self._strace.wait()


def read_calls(lines: Iterable[str]) -> Iterator[Call]:
    """The calls on descriptors in a trace, in the order of their ends."""
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        thread, rest = match["thread"], match["rest"]
        began = number
        if (begins := _BEGINS.fullmatch(rest)) is not None:
            begun[thread] = (number, begins["arguments"])
            continue
        arguments = ""
        if (ended := _ENDS.fullmatch(rest)) is not None:
            if thread not in begun:
                continue  # it had begun before the trace did
            began, arguments = begun.pop(thread)
        else:
            ended = _WHOLE.fullmatch(rest)
        if ended is None:
            continue  # a signal, or the end of a thread
        arguments += ended["arguments"]
        result = -1 if ended["result"] == "?" else int(ended["result"])
        target = _DESCRIPTOR.match(arguments)
        if target is None:
            continue
        data, offset = b"", 0
        if ended["name"] in WRITES:
            data = _written(arguments)[: max(result, 0)]
            if ended["name"] == "pwrite64":
                place = _OFFSET.search(arguments)
                assert place is not None, arguments
                offset = int(place["offset"])
        yield Call(ended["name"], target["what"], began, number, result, data, offset)


def _written(arguments: str) -> bytes:
    """The bytes among the arguments, of all pieces."""
    strings = list(_STRING.finditer(arguments))
    pieces = [string for string in strings if string["iovec"]] or strings[:1]
    assert not any(piece["cut"] for piece in pieces), "strace was told to cut what is written (-s)"
    return b"".join(ast.literal_eval("b" + piece["literal"]) for piece in pieces)


class Safe(NamedTuple):
    """When a text was safe: `since` is a line of the trace, `log` the file that it was written to first."""

    log: str
    since: int


def safe_since(calls: Iterable[Call], marker: re.Pattern[bytes], longest: int) -> dict[bytes, Safe | None]:
    """For each text that `marker` finds (at most `longest` bytes) in what is written to a log: since when it is safe; None, if it never is.

    That is: the whole commit with it had been written, then a sync of the same file began, and this has returned 0.
    """
    logs: defaultdict[str, bytearray] = defaultdict(bytearray)
    #: Log -> texts that were written there, whose commit is not complete.
    uncommitted: defaultdict[str, list[bytes]] = defaultdict(list)
    #: Logs whose next write completes a commit.
    completing: set[str] = set()
    #: Text -> (log, where its commit was complete), until it is safe.
    unsynced: dict[bytes, tuple[str, int]] = {}
    found: dict[bytes, Safe | None] = {}
    for call in calls:
        log = call.target
        if not log.endswith((LOG_SUFFIX, *SEGMENT_SUFFIXES)):
            continue
        if call.name in SYNCS and call.result == 0:
            covered = [
                text for text, (where, since) in unsynced.items() if where == log and since < call.began
            ]
            for text in covered:
                del unsynced[text]
                found[text] = Safe(log, call.ended)
        elif call.name == "pwrite64" and log.endswith(SEGMENT_SUFFIXES):
            length = int.from_bytes(call.data[_LENGTH], "little")
            assert len(call.data) == _RECORD_HEADER + length, "a record is written with one call"
            new = [text for text in dict.fromkeys(marker.findall(call.data)) if text not in found]
            found.update(dict.fromkeys(new))
            unsynced.update((text, (log, call.ended)) for text in new)
        elif call.name == "pwrite64":
            content, end = logs[log], call.offset + len(call.data)
            content.extend(bytes(max(0, call.offset - len(content))))
            content[call.offset : end] = call.data
            # A text may have been written in two pieces.
            near = bytes(content[max(0, call.offset - longest) : end + longest])
            new = [text for text in dict.fromkeys(marker.findall(near)) if text not in found]
            found.update(dict.fromkeys(new))
            uncommitted[log] += new
            if log in completing:
                completing.remove(log)
                unsynced.update((text, (log, call.ended)) for text in uncommitted.pop(log, ()))
            elif len(call.data) == _PAGE_HEADER and any(call.data[_COMMIT]):
                completing.add(log)
    return found


class Shown(NamedTuple):
    """A frame that was written to a client: its payload, and the line of the trace where writing its first byte began."""

    payload: bytes
    began: int


def frames(calls: Iterable[Call]) -> dict[str, list[Shown]]:
    """The frames written to each client, by the socket's name; the trace must have begun between two of them."""
    shown: defaultdict[str, list[Shown]] = defaultdict(list)
    #: Socket -> what is written of a frame that is not complete, and where that began.
    pieces: dict[str, tuple[bytes, int]] = {}
    for call in calls:
        socket = call.target
        if call.name not in WRITES or not socket.startswith("socket:"):
            continue
        stream, began = pieces.pop(socket, (b"", call.began))
        stream += call.data
        if stream[:1] not in _TO_CLIENTS:
            continue  # the bus or a hand-over
        while (payload := _payload(stream)) is not None:
            shown[socket].append(Shown(stream[payload], began))
            stream, began = stream[payload.stop :], call.began
        if stream:
            pieces[socket] = stream, began
    return shown


def _payload(stream: bytes) -> slice | None:
    """Where the payload of the first frame is; None if it is not complete."""
    start = {126: 4, 127: 10}.get(stream[1], 2) if len(stream) >= 2 else 2
    if len(stream) < start:
        return None
    end = start + (stream[1] if start == 2 else int.from_bytes(stream[2:start], "big"))
    return slice(start, end) if len(stream) >= end else None
