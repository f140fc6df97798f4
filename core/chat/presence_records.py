"""What shards know of who is online, when all of them are replaced by another number of shards (``core.chat.succession``).

Each user who is online lives on one of the old shards, and that one says so; the copies that the others have are left out. Only of users
whose worker has died the owner knows nothing: they have their grace with those who knew them, so these say it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Any, Final

#: A version that no snapshot has: nothing is known of that worker yet.
NOTHING_KNOWN: Final = -1


def own_part(record: dict[str, Any], local: Collection[str]) -> dict[str, Any]:
    """Return, of what `Presence.export` has returned, what only this shard knows, on which the users `local` live."""
    online, leaving = record["online"], record["leaving"]
    return {
        "everyone": record["everyone"],
        "online": {user_id: online[user_id] for user_id in local},
        "leaving": {user_id: due for user_id, due in leaving.items() if user_id in local},
        "lost": {user_id: [online[user_id], due] for user_id, due in leaving.items() if user_id not in local},
        "revision": record["revision"],
    }


def merged(records: Sequence[dict[str, Any]], worker: int, worker_of: Callable[[str], int]) -> dict[str, Any]:
    """Make of what `own_part` has returned on all old shards what `Presence.restore` takes on the new shard of `worker`."""
    online: dict[str, str] = {}
    leaving: dict[str, float] = {}
    for record in records:
        online |= record.get("online", {})
        # The shard that owns a user says when the grace is over.
        leaving |= {
            user_id: due for user_id, due in record.get("leaving", {}).items() if worker_of(user_id) == worker
        }
    lost: dict[str, tuple[str, float]] = {}
    for record in records:
        for user_id, (name, due) in record.get("lost", {}).items():
            if user_id not in online:
                lost[user_id] = name, max(due, lost.get(user_id, ("", due))[1])
    for user_id, (name, due) in lost.items():
        online[user_id], leaving[user_id] = name, due
    replicas: dict[int, list[str]] = {}
    for user_id in online:
        owner = worker_of(user_id)
        if owner != worker:
            replicas.setdefault(owner, []).append(user_id)
    return {
        "everyone": all(record.get("everyone", True) for record in records),
        "online": online,
        "leaving": dict(sorted(leaving.items(), key=itemgetter(1))),
        "replicas": [[owner, 0, NOTHING_KNOWN, users] for owner, users in replicas.items()],
        # Not less than any session has been told of.
        "revision": max(record.get("revision", 0) for record in records),
    }


class Replica:
    """What one other worker has announced."""

    __slots__ = ("generation", "users", "version")

    def __init__(self) -> None:
        self.generation = 0
        self.version = NOTHING_KNOWN
        self.users: set[str] = set()

    def export(self, worker: int) -> list[Any]:
        """Return what `restore` needs in a successor, behind the worker."""
        return [worker, self.generation, self.version, list(self.users)]

    def restore(self, generation: int, version: int, users: list[str]) -> None:
        """Take over what `export` has returned."""
        self.generation, self.version = generation, version
        self.users.update(users)
