"""What the supervisor and its children say to each other over the control pipe, one JSON object a packet.

| direction | op | fields | meaning |
|---|---|---|---|
| child -> supervisor | ready | | booted: a worker's endpoints are open, a front accepts |
| | refused | reason | cannot boot: a sentence for the operator; the child exits right after with one of the codes below |
| | beat | | the event loop made a turn; sent by the loop itself, about every half second |
| | stats | stats | counters and gauges by name, about once a second |
| supervisor -> child | stop | code, reason | close every connection with this close code, then exit 0 |
| | drain | seconds | a worker closes its connections within so many seconds, one after the other (``workers.draining``); a front closes \
all of its, also those that wait in its backlogs, and exits 0 |
| | log_level | level | log from this level on (``core.process.logs``) |
| | reload_keys | | read the keys of tokens (``core.auth.keys``) and the secrets of the hook (``core.auth.hook_secrets``) again |
| supervisor -> front | leave | | accept no more connections, and exit 0 when the last one has ended (``router.front.front``) |
| | resize | id, workers | hand over to so many workers from now on; no worker takes sockets until that is answered |
| supervisor -> worker | worker_gone | worker, generation, next | that process is dead; `next` is the one in its place |
| | succeed | path | give everything to the process that waits at `path` (``core.process.succession``), and end |
| | worker_succeeded | worker, generation | another process takes the place of that worker's: send to it from now on |
| worker -> supervisor | waiting | path | booted, and waits there for the process whose place it takes, or for all whose users it gets |
| | leaving | | nothing is under way any more: everything goes to the other process now |
| | stays | reason | it can't be replaced now, and goes on serving |
| supervisor -> worker | ask | id, what, user | an operator wants to know something of a user, or have it done (``core.chat.operator``) |
| | track | id | note from now on what is written, for the files of another number of workers (``workers.resizing``, as the six below) |
| | look | id, path | write what was noted since the last look to that file |
| | untrack | | note nothing more |
| | rest | id | read from no client any more; answer when none waits for anything |
| | settle | id, wave | send all other workers a last record; answer when theirs have come, and say how much was sent since the last time |
| | go_on | | go on serving |
| | give | paths | give everything to the processes that wait there, the first of which is worker 0 of the new number, and end |
| supervisor -> resize | fill, catch_up, finish, remove | id, looks | see ``workers.store.resize`` |
| child -> supervisor | answer | id, answer | what there is to tell, in any order; `failed` in it says why there is nothing |

The pipe is a SEQPACKET socket pair, so a packet is a whole message. End of file on it means that the other end is gone, and the copy of it
that the keeper has (``router.supervisor.keeper``): a child that sees it exits within a second. The supervisor reaps the child.
"""

from __future__ import annotations

from typing import Any, Final

from core.wire.codec import from_json, to_json

READY: Final = "ready"
REFUSED: Final = "refused"
BEAT: Final = "beat"
STATS: Final = "stats"
STOP: Final = "stop"
DRAIN: Final = "drain"
LOG_LEVEL: Final = "log_level"
RELOAD_KEYS: Final = "reload_keys"
WORKER_GONE: Final = "worker_gone"
SUCCEED: Final = "succeed"
LEAVE: Final = "leave"
WORKER_SUCCEEDED: Final = "worker_succeeded"
WAITING: Final = "waiting"
LEAVING: Final = "leaving"
STAYS: Final = "stays"
ASK: Final = "ask"
ANSWER: Final = "answer"
TRACK: Final = "track"
LOOK: Final = "look"
UNTRACK: Final = "untrack"
REST: Final = "rest"
SETTLE: Final = "settle"
GO_ON: Final = "go_on"
GIVE: Final = "give"
RESIZE: Final = "resize"
FILL: Final = "fill"
CATCH_UP: Final = "catch_up"
FINISH: Final = "finish"
REMOVE: Final = "remove"
#: Of an answer: why what was asked for can't be done, a part of a sentence.
FAILED: Final = "failed"

# -- Figures among the stats of a worker that the supervisor understands: 1 while it is so --
#: Its store can't write.
STORE_FAILING: Final = "store_failing"
#: It has all the memory that it may have, and takes no more connections.
MEMORY_FULL: Final = "memory_full"
#: It drains, and all its connections have gone.
DRAINED: Final = "drained"
#: So many of the other workers have not been heard since they, or it, started: what is for their users may not get there.
BUS_UNHEARD: Final = "bus_unheard"

#: So many of its sockets in the run directory were removed and could not be opened again: fronts and workers that start don't find it.
ENDPOINTS_MISSING: Final = "endpoints_missing"

#: More than any packet has; the receive buffer of both ends.
PACKET_MAX_BYTES: Final = 128 * 1024

#: Seconds between two beats of an event loop. A loop that beats so often is found within four seconds when it hangs, and a beat costs some
#: microseconds.
BEAT_INTERVAL: Final = 0.5

# -- Exit codes of every process of ours --
#: The operator has to change something first: a bad setting, a taken port, an unwritable directory.
EXIT_CONFIGURATION: Final = 2
#: A process could not boot for another reason: the system refuses something, or it crashed.
EXIT_BOOT_FAILURE: Final = 3

# -- Close reasons that clients read (D28) --
STOP_REASON: Final = "server is shutting down"
#: One process only, whose clients reconnect to another one or to its successor.
RESTART_REASON: Final = "server is restarting"


def encode_control(op: str, **fields: Any) -> bytes:
    """Return one packet."""
    return to_json({"op": op, **fields})


def decode_control(packet: bytes) -> dict[str, Any]:
    """Undo `encode_control`. Raises ValueError for what is not a JSON object with an `op`."""
    message = from_json(packet)
    if not isinstance(message, dict) or "op" not in message:
        raise ValueError(f"expected a control message, a JSON object with `op`, not {packet[:80]!r}")
    return message
