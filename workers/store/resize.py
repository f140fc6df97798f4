"""The process that makes files for another number of workers while the server runs: ``python -m workers.store resize``.

The supervisor asks over the control pipe, one thing after the other, and waits for each answer:

    fill               after all workers have begun to note what changes
    catch_up  looks    paths of what workers have noted, of all or of some; they are removed. Answers with `rows`, how many were copied
    finish    looks    all workers are at rest, and these are their last looks. From the answer on, the new files hold
    remove             no process has the old files open any more: they are removed, and this process ends

Each look is of one worker, written by ``workers.store.tracking.Tracking.look``; those of one worker may be named in any order. When
something fails before the new files hold, these are removed, and the process says `refused` and ends with exit code 2. When it is told
`stop`, it removes them and ends with 0. Whatever kills this process before the switch, the old files hold.
"""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from core.process.child import ControlPipe
from core.process.control import ANSWER, CATCH_UP, EXIT_CONFIGURATION, FILL, FINISH, REFUSED, REMOVE, STOP
from core.process.data_directory import read_layout
from core.process.settings import ConfigurationError
from workers.store.data_directory import locked
from workers.store.filling import Stopped
from workers.store.live_reshard import LiveReshard, live_reshard, remove_others


class Requests:
    """What the supervisor asks for. A thread hears it, since what is done at the moment must end when nobody wants it any more."""

    def __init__(self, control: ControlPipe) -> None:
        self._control = control
        self._queue: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        #: The number of the request that is answered next.
        self._number = 0
        #: Set when nothing more is wanted.
        self.ended = Event()
        handlers = dict.fromkeys((FILL, CATCH_UP, FINISH, REMOVE), self._queue.put)
        control.listen_in_thread({**handlers, STOP: self._end})

    def next(self) -> dict[str, Any]:
        """Wait for the next request. Raises Stopped when there is none."""
        request = self._queue.get()
        if request is None:
            raise Stopped
        self._number = request["id"]
        return request

    def answer(self, **told: Any) -> None:
        """Answer that request."""
        self._control.send(ANSWER, id=self._number, answer=told)

    def _end(self, message: dict[str, Any]) -> None:
        self.ended.set()
        self._queue.put(None)


def resize(directory: Path, workers: int, lock: int | None, control: ControlPipe) -> int:
    """Do what is asked for; the exit code. `lock` is the descriptor of the supervisor's lock."""
    requests = Requests(control)
    try:
        with locked(directory, lock):
            with live_reshard(directory, workers, requests.ended) as change:
                _until_held(directory, change, requests)
            while requests.next()["op"] != REMOVE:
                pass
            remove_others(directory, change.new)
            requests.answer()
    except Stopped:
        return 0
    except (ConfigurationError, OSError) as error:
        control.send(REFUSED, reason=str(error))
        return EXIT_CONFIGURATION
    return 0


def _until_held(directory: Path, change: LiveReshard, requests: Requests) -> None:
    while True:
        request = requests.next()
        looks = [Path(look) for look in request.get("looks", ())]
        if request["op"] == FILL:
            change.fill()
            requests.answer()
        elif request["op"] == CATCH_UP:
            requests.answer(rows=change.catch_up(looks))
        elif request["op"] == FINISH:
            rows = None
            try:
                rows = change.finish(looks)
            except OSError:
                if read_layout(directory) != change.new:
                    raise
                # The disk has failed in the middle of the switch, and the next start would find the new files: so they hold.
            requests.answer(rows=rows)
            return
