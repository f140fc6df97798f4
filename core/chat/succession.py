"""From one process of a worker to the next while its clients stay connected: what memory knows and the store does not.

The *predecessor* comes to rest (`unfinished`) and gives away what it knows as records, plain dictionaries that JSON can hold (`export`).
The *successor*, a new shard with the same index and settings, takes the record of the shard (`gather`), then all others (`resume`). Each
class says itself what it gives away (`export`, `restore`); here it is put together.

When the number of workers changes, all workers are replaced at once, and each gives to every new one what is about the users who will
live there (`divide`). A new shard takes the records of all old shards together (`gather`), then all others, in any order.

Users themselves, their chats, names and mailboxes, come from the store: the predecessor's has committed everything before the
successor's opens. All times are on clocks that both processes share, so they are kept as they are.

The successor serves nobody until all records are resumed: what reaches one user depends on others being there. Then it introduces itself to
the other workers (`Shard.start`), whose snapshot of it has everybody in it, so nobody is seen to leave.

Versions may differ: fields that are not known are ignored, and those that are missing have defaults. What can't be read any more has
another format.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

from core.chat.chat_lists import ExportedChange
from core.chat.command_queue import EVERYTHING
from core.chat.pace import SHARED_RATE
from core.chat.presence_records import merged, own_part
from core.chat.session import Session
from core.chat.shard import BUG_REASON, Shard
from core.chat.user import Device, User
from core.events import fields
from core.placement import Placement
from core.wire.protocol import CloseCode

_log = logging.getLogger("fastchat.core")

#: The format of all records.
FORMAT: Final = 1

SHARD: Final = "shard"
USER: Final = "user"
STRANGER: Final = "stranger"

#: What a client reads whose user can't be loaded.
_UNREADABLE_REASON: Final = "the server can't read what it has stored"

#: A record, and the sessions that it is about.
Exported = tuple[dict[str, Any], list[Session]]


def unfinished(shard: Shard, *, resize: bool = False) -> str | None:
    """Return what is under way that a successor could not finish, as a few words for the log ("3 requests"); None when the shard is quiet.

    What the store is doing for nobody in particular (`Store.after_writes`, `Store.history`) is not seen here: the caller waits until the
    store has called back for everything, and the bus has taken everything. With `resize`, in which all shards are replaced, that is
    unfinished too which others would tell a successor later.
    """
    busy = waiting = 0
    for user in shard.users.known.values():
        busy += user.busy
        for session in user.sessions:
            waiting += not session.is_settled
    found = [
        (len(shard.exchange) + shard.messages.open, "requests"),
        (shard.users.loading, "users being loaded"),
        (busy, "users with calls of the store or requests"),
        (waiting, "connections with commands that wait"),
        (int(shard.ready), "turn that is due"),
        (shard.receipts.owed, "receipts that could not be saved"),
        (shard.presence.unpublished, "joins and leaves to be published"),
    ]
    if resize:
        presence = shard.presence
        found.append((shard.exchange.streams.held, "workers whose envelopes wait"))
        found.append((presence.unheard + presence.owed, "workers with which presence is to be compared"))
    return ", ".join(f"{number} {what}" for number, what in found if number) or None


def export(shard: Shard, sessions: Iterable[Session], now: float) -> Iterator[Exported]:
    """Yield the record of the shard; then one of each user with connections, and of whom else memory knows something that the store does
    not; and one of each connection without a user.

    `sessions` are all that are open. Nothing may happen to the shard meanwhile or afterwards.
    """
    counted = dict(shard.users.idle.counted(now))
    remembered = _remembered(shard)
    limits = {user_id: times for user_id, times in counted.items() if user_id not in remembered}
    yield _of_shard(shard, limits, shard.presence.export(), shard.typing.export()), []
    yield from _of_sessions(shard, sessions, remembered, counted)


def divide(
    shard: Shard, sessions: Iterable[Session], workers: int, now: float
) -> Iterator[tuple[int, Exported]]:
    """Yield what `export` does, for so many new workers: a record of the shard for each, and all others for the one that owns the user.

    All old workers are quiet, and nothing is on its way between them.
    """
    worker_of = Placement(workers).worker_of
    counted = dict(shard.users.idle.counted(now))
    remembered = _remembered(shard)
    limits: list[dict[str, Any]] = [{} for _ in range(workers)]
    for user_id, times in counted.items():
        if user_id not in remembered:
            limits[worker_of(user_id)][user_id] = times
    typing: list[list[list[Any]]] = [[] for _ in range(workers)]
    for shown in shard.typing.export():
        typing[worker_of(shown[1])].append(shown)  # it is kept where the recipient lives
    shard.presence.mark_changes()
    presence = own_part(shard.presence.export(), {user.user_id for user in shard.presence.locals()})
    for worker in range(workers):
        yield worker, (_of_shard(shard, limits[worker], presence, typing[worker]), [])
    for record, devices in _of_sessions(shard, sessions, remembered, counted):
        yield worker_of(record["user"] if record["kind"] == USER else devices[0].claimed), (record, devices)


def gather(shard: Shard, records: Sequence[dict[str, Any]]) -> None:
    """Take the record of the shard whose place this new one takes, or those of all shards that there were, in any order.

    That comes before anything else. Raises ValueError for any other record, and unless the shards are that one, or all.
    """
    for record in records:
        _check(record, SHARD)
    here = shard.index, shard.exchange.placement.workers
    sources = sorted((record.get("worker", here[0]), record.get("workers", here[1])) for record in records)
    presences = [record.get("presence", {}) for record in records]
    if sources == [here]:
        shard.presence.restore(presences[0])
    elif sources and sources == [(worker, sources[0][1]) for worker in range(sources[0][1])]:
        shard.presence.restore(merged(presences, shard.index, shard.exchange.placement.worker_of))
    else:
        raise ValueError(
            f"the records of worker {here[0]}, or of all workers, were expected, not of {sources}"
        )
    for record in records:
        for user_id, counted in record.get("limits", {}).items():
            shard.users.idle.remember(user_id, counted)
    shown = [each for record in records for each in record.get("typing", [])]
    shard.typing.restore(sorted(shown, key=itemgetter(2)))
    spare = [record["spare"] for record in records if record.get("spare") is not None]
    if spare:
        # Nobody is to gain by the change, and it makes a difference for a fraction of a second.
        shard.spare.restore(min(spare, key=lambda bucket: bucket[0] - bucket[1] * SHARED_RATE))


def resume(
    shard: Shard,
    record: dict[str, Any],
    sessions: list[Session],
    then: Callable[[float], None],
    now: float,
) -> None:
    """Take the record of a user or a stranger. `sessions` are new ones (made by `Shard.connect`), in the order of the record.

    `then` is called once they go on where the predecessor stopped: at once, or when the store has loaded the user, within `Shard.end_turn`.
    Sessions of a user whom the store can't load are closed before. Until `then` has been called for all records the worker reads nothing
    from clients and other workers, and does not call `Shard.tick`. Raises ValueError for a record that it can't take.
    """
    _check(record, USER, STRANGER)
    exported: list[dict[str, Any]] = record.get("sessions", [])
    if len(exported) != len(sessions):
        raise ValueError(f"a record of {len(exported)} connections came with {len(sessions)}")
    if record["kind"] == STRANGER:
        for session, each in zip(sessions, exported, strict=True):
            _restore(shard, session, each)
        then(now)
        return
    for session in sessions:
        session.hold(EVERYTHING)
    user_id = record["user"]
    shard.users.idle.remember(user_id, record.get("counted", []))
    shard.users.find(user_id, partial(_found, shard, record, sessions, then), now)


def _check(record: dict[str, Any], *kinds: str) -> None:
    found = record.get("format")
    if found != FORMAT:
        raise ValueError(f"a record of format {FORMAT} was expected, and one of format {found!r} came")
    if record.get("kind") not in kinds:
        raise ValueError(
            f"a record of kind {' or '.join(kinds)} was expected, and one of kind {record.get('kind')!r} came"
        )


def _remembered(shard: Shard) -> dict[str, dict[str, Any]]:
    """Return the records of users with connections, and of whom else memory knows something that the store does not."""
    present = {user.user_id: user for user in shard.presence.locals()}
    timestamp = shard.expiries.clock.timestamp()
    return {
        user_id: record | {"present": user_id in present}
        for user_id, user in {**present, **shard.users.known}.items()
        if (record := user.export(timestamp))["receipts_due"] or record["heard_at"] or user_id in present
    }


def _of_shard(
    shard: Shard, limits: dict[str, Any], presence: dict[str, Any], typing: list[list[Any]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": SHARD,
        "worker": shard.index,
        "workers": shard.exchange.placement.workers,
        "limits": limits,
        "presence": presence,
        "typing": typing,
        "spare": shard.spare.export(),
    }


def _of_sessions(
    shard: Shard,
    sessions: Iterable[Session],
    remembered: dict[str, dict[str, Any]],
    counted: dict[str, list[list[float]]],
) -> Iterator[Exported]:
    opened: dict[Device, Session] = {session: session for session in sessions if not session.closed}
    present = {user.user_id: user for user in shard.presence.locals()}
    notes = shard.delivery.export()
    changed = shard.lists.export()
    for user_id, record in remembered.items():
        user = shard.users.known.get(user_id) or present[user_id]
        devices = [opened[device] for device in user.sessions if device in opened]
        record |= {
            "format": FORMAT,
            "kind": USER,
            "user": user_id,
            "counted": counted.get(user_id, []),
            "scope": shard.presence.scope,
            **_lists(changed.get(user_id, {}), devices),
            "sessions": [_session(shard, session, notes) for session in devices],
        }
        yield record, devices
    for session in opened.values():
        if session.user is None:
            yield {"format": FORMAT, "kind": STRANGER, "sessions": [session.export()]}, [session]


def _session(shard: Shard, session: Session, notes: dict[Device, dict[str, Any]]) -> dict[str, Any]:
    return {
        **session.export(),
        **notes.get(session, {}),
        "typing_held": shard.typing.held(session),
        "presence_due": shard.presence.is_due(session),
    }


def _lists(changed: dict[str, ExportedChange], devices: list[Session]) -> dict[str, dict[str, Any]]:
    """Return which chats have changed, with the number of the device whose doing it was, if it is still there.

    The messages stand apart, where a version that knows nothing of them does not look.
    """
    numbers: dict[Device | None, int] = {device: number for number, device in enumerate(devices)}
    return {
        "lists": {
            peer: [change.due, change.pending, numbers.get(change.cause)] for peer, change in changed.items()
        },
        "lists_last": {peer: change.last for peer, change in changed.items() if change.last is not None},
    }


def _restore(shard: Shard, session: Session, record: dict[str, Any]) -> None:
    shard.expiries.forget(session)
    session.restore(record)
    shard.expiries.watch_again(session, record.get("expiry_due", 0))


def _found(
    shard: Shard,
    record: dict[str, Any],
    sessions: list[Session],
    then: Callable[[float], None],
    user: User | None,
    failure: str | None,
    now: float,
) -> None:
    """Take the record of a user whom the store has loaded, or has not. Trouble with one ends the connections of this one."""
    user_id = record["user"]
    code, reason = CloseCode.TRY_AGAIN_LATER, _UNREADABLE_REASON
    if user is not None:
        try:
            _put_together(shard, record, user, sessions, now)
            then(now)
            return
        except Exception:  # a bug, or what another version has exported
            _log.exception("bug while taking over a user", extra=fields(user=user_id))
            code, reason = CloseCode.INTERNAL_ERROR, BUG_REASON
    else:
        _log.error(
            "a user of the predecessor can't be loaded",
            extra=fields(user=user_id, reason=failure or "the store has no such user"),
        )
    for session in sessions:
        if not session.closed:
            session.close(code, reason, now)
    shard.presence.lost(user_id, now)
    then(now)


def _put_together(
    shard: Shard, record: dict[str, Any], user: User, sessions: list[Session], now: float
) -> None:
    """Add to a user, as the store has it, what the record has, and go on."""
    user.restore(record)
    due: list[Device] = []
    # Shards may have been of two minds about it, while nearly so many were online as can all be listed.
    other_scope = record.get("scope", shard.presence.scope) != shard.presence.scope
    for session, each in zip(sessions, record.get("sessions", []), strict=True):
        session.user = user
        user.sessions.append(session)
        _restore(shard, session, each)
        shard.delivery.restore(session, each)
        shard.typing.hold(session, each.get("typing_held", {}))
        session.presence_full |= other_scope
        if other_scope or each.get("presence_due", False):
            due.append(session)
    if record.get("present", False):
        shard.presence.restore_user(user, due, now)
    user.devices_changed()
    shard.blocks.compare(user)
    if sessions and not user.here_since:
        user.here_since = shard.expiries.clock.timestamp()  # the version before did not say
    lasts = record.get("lists_last", {})
    for peer, (next_at, pending, cause) in record.get("lists", {}).items():
        device = None if cause is None else sessions[cause]
        shard.lists.restore(user, peer, ExportedChange(next_at, pending, device, lasts.get(peer)))
    for session in sessions:
        if session.closed:
            shard.detach(session, now)
            continue
        if session.behind:
            shard.delivery.pump(user, session, now)
        session.continue_later(EVERYTHING)
