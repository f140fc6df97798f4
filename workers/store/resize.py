"""The process that makes files for another number of workers while the server runs: ``python -m workers.store resize``.

The supervisor writes requests to its standard input and reads answers from its standard output, one JSON object a line each:

    (start)                    --> {"ready": GENERATION, "directory": PATH}    looks may be written to this directory
    {"fill": true}             --> {"filled": true}                            after all workers have begun to note what changes
    {"catch_up": [PATH, ...]}  --> {"rows": N}                                 looks of all workers, or of some; they are removed
    {"finish": [PATH, ...]}    --> {"held": GENERATION, "rows": N}             all workers are at rest, and these are their last looks
    {"abort": true}, or the end of the input before `held` --> {"aborted": true}, exit code 0

Each look is of one worker, written by ``workers.store.tracking.Tracking.look``; those of one worker may be named in any order. After
`held` the process waits for the end of its input, which says that no process has the old files open any more, and removes these.

When something fails the answer is {"refused": SENTENCE, "holds": GENERATION}, and the process ends with exit code 2. The new files are
removed then, as after an abort, unless ``holds`` is their generation: then the disk has failed in the middle of the switch, and the files
that held before could not be made to hold again. Whatever kills this process before the switch, the old files hold.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import IO, Any, Final

from core.process.control import EXIT_CONFIGURATION
from core.process.data_directory import read_layout
from core.process.settings import ConfigurationError
from core.wire.codec import from_json, to_json
from workers.store.data_directory import locked
from workers.store.filling import Stopped
from workers.store.live_reshard import LiveReshard, live_reshard, remove_others

#: Bytes that are read at once.
_READ_BYTES: Final = 65536


class Requests:
    """What comes in, which a thread reads, since what is done at the moment must end when nobody wants it any more."""

    def __init__(self, source: int) -> None:
        """Read from this descriptor."""
        self._source = source
        self._queue: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        #: Set at the end of the input, and by an abort.
        self.ended = Event()
        Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """Wait for the next request; None at the end."""
        return self._queue.get()

    def _read(self) -> None:
        with suppress(ValueError, OSError):
            for line in self._lines():
                request = from_json(line)
                if "abort" in request:
                    break
                self._queue.put(request)
        self.ended.set()
        self._queue.put(None)

    def _lines(self) -> Iterator[bytes]:
        # Not with a file object: the process could not end while this thread waits in there.
        rest = b""
        while content := os.read(self._source, _READ_BYTES):
            *lines, rest = (rest + content).split(b"\n")
            yield from lines


def resize(directory: Path, workers: int, lock: int | None, source: int, target: IO[bytes]) -> int:
    """Do what is asked for at descriptor `source` and answer to `target`; the exit code. `lock` is that of the supervisor's lock."""
    for number in (signal.SIGINT, signal.SIGHUP):
        # What a terminal sends to all processes. The supervisor gets it too, and ends the input.
        signal.signal(number, signal.SIG_IGN)
    requests = Requests(source)

    def answer(**values: Any) -> None:
        # Who does not listen any more has ended the input, too.
        with suppress(OSError):
            target.write(to_json(values) + b"\n")
            target.flush()

    try:
        with locked(directory, lock):
            with live_reshard(directory, workers, requests.ended) as change:
                answer(ready=change.new.generation, directory=str(change.place))
                answer(**_until_held(change, requests, answer))
            while requests.next() is not None:
                pass
            with suppress(OSError):
                remove_others(directory, change.new)
    except Stopped:
        answer(aborted=True)
    except ConfigurationError as error:
        layout = read_layout(directory)
        answer(refused=str(error), holds=layout and layout.generation)
        return EXIT_CONFIGURATION
    return 0


def _until_held(change: LiveReshard, requests: Requests, answer: Any) -> dict[str, Any]:
    while (request := requests.next()) is not None:
        match request:
            case {"fill": _}:
                change.fill()
                answer(filled=True)
            case {"catch_up": looks}:
                answer(rows=change.catch_up([Path(look) for look in looks]))
            case {"finish": looks}:
                rows = change.finish([Path(look) for look in looks])
                return {"held": change.new.generation, "rows": rows}
            case _:
                raise ConfigurationError(f"unknown request {request}")
    raise Stopped
