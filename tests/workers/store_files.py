"""A data directory full of users, chats and messages, made without a server; and all that is in one, whichever file it is in."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from core.placement import Placement, slot_of
from core.process.layout import Layout, parse_layout
from workers.store.prepare import prepare
from workers.store.rows import id_hash

#: 2026-01-01, in milliseconds since 1970.
START: Final = 1_767_225_600_000
DAY_MS: Final = 86_400_000


#: What is kept of a user; `left_at` is by the clock of the file, which changes with it.
_USERS: Final = (
    "SELECT number, user_id, slot, display_name, acknowledges, epoch, acknowledged_through, purged_through, seen_at,"
    " summed_through, deleting FROM users ORDER BY number"
)
#: What is kept of a chat, a block, and a message, withheld or not.
_CHATS: Final = (
    "SELECT peer, peer_name, confirmed, written, active_at, newest, read_through, unread, summed_through, hidden, muted"
    " FROM chats WHERE user = ? ORDER BY number"
)
_BLOCKS: Final = (
    "SELECT peer, by_user, by_peer, read_through, withheld FROM blocks WHERE user = ? ORDER BY peer"
)
_HOOK_CALLS: Final = "SELECT peer, since, due FROM hook_calls WHERE user = ? ORDER BY peer"
_MESSAGES: Final = (
    "SELECT seq, peer, id_hash, message_id, content, sent_at, receipts, lamport FROM messages"
    " LEFT JOIN chats ON chats.number = messages.chat WHERE mailbox = ? ORDER BY seq"
)


class Content(NamedTuple):
    """All that a client could notice, without numbers of rows. Each value is what SQLite has."""

    #: user id -> all columns but the number.
    users: dict[str, tuple[Any, ...]]
    #: user id -> rows of `_CHATS`, in the order in which they were opened.
    chats: dict[str, list[tuple[Any, ...]]]
    #: user id -> (seq, sender or None, id_hash, message_id, content, sent_at, receipts, lamport), by position.
    mailboxes: dict[str, list[tuple[Any, ...]]]
    #: user id -> positions.
    acknowledged: dict[str, list[int]]
    #: user id -> rows of `_BLOCKS`.
    blocks: dict[str, list[tuple[Any, ...]]]
    #: user id -> rows of `_HOOK_CALLS`.
    hook_calls: dict[str, list[tuple[Any, ...]]]
    #: user id -> what is withheld from that user, as in `mailboxes`, by Lamport count.
    withheld: dict[str, list[tuple[Any, ...]]]


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode."""
    return sqlite3.connect(path, isolation_level=None)


def layout_of(directory: Path) -> Layout:
    """What holds."""
    return parse_layout((directory / "layout.json").read_bytes())


def shards(directory: Path) -> list[Path]:
    """The files that hold."""
    return [directory / name for name in layout_of(directory).shards()]


def fill(directory: Path, workers: int, users: int, messages: int, seed: int = 1) -> list[str]:
    """Make a data directory; the user ids. Everybody has a chat with the next few; the messages are spread over 30 days."""
    generator, hooked = random.Random(seed), random.Random(seed)
    prepare(directory, workers)
    placement = Placement(workers)
    ids = [str(UUID(int=generator.getrandbits(128), version=4)) for _ in range(users)]
    number_of: dict[str, int] = {}
    chat_of: dict[tuple[str, str], int] = {}
    rows: list[dict[str, list[tuple[Any, ...]]]] = [
        {"users": [], "chats": [], "messages": [], "acknowledged": [], "blocks": [], "hook_calls": []}
        for _ in range(workers)
    ]
    head: dict[str, int] = dict.fromkeys(ids, 0)
    purged = {user: generator.choice([0, 0, 3]) for user in ids}
    pairs = []
    for index, user in enumerate(ids):
        for step in range(1, min(4, users)):
            peer = ids[(index + step) % users]
            pairs += [(user, peer), (peer, user)]
    for user in ids:
        number_of[user] = len(rows[placement.worker_of(user)]["users"]) + 1
        rows[placement.worker_of(user)]["users"].append((number_of[user], user))
    for user, peer in dict.fromkeys(pairs):
        mine = rows[placement.worker_of(user)]["chats"]
        chat_of[user, peer] = len(mine) + 1
        flags = generator.random() < 0.5, len(mine) % 2
        seen = generator.random() < 0.1, generator.random() < 0.1
        mine.append((len(mine) + 1, number_of[user], peer, f"Näme of {peer[:4]}", *flags, START, *seen))
        if generator.random() < 0.2:
            block = generator.random() < 0.5, generator.random() < 0.5, generator.randrange(9)
            rows[placement.worker_of(user)]["blocks"].append((number_of[user], peer, *block, len(peer)))
        if hooked.random() < 0.2:
            call = START, hooked.choice([START + 1000, None])
            rows[placement.worker_of(user)]["hook_calls"].append((number_of[user], peer, *call))
    known = list(chat_of)
    for index in range(messages):
        user, peer = known[generator.randrange(len(known))]
        message_id = f"m-{index}"
        if index >= messages // 3 and index % 11 == 0:
            place = -number_of[user], index
        else:
            head[user] = head[user] + 1 if head[user] else purged[user] + 1
            place = number_of[user], head[user]
        # Not quite in order, as when two workers send to one mailbox.
        sent_at = START + index * 2_592_000_000 // max(messages, 1) + generator.randrange(3)
        rows[placement.worker_of(user)]["messages"].append(
            (
                *(*place, chat_of[user, peer], id_hash(message_id), message_id),
                *(f"Hello {index} " + "x" * generator.randrange(80), sent_at),
                generator.random() < 0.2,
                # The first ones are from before there were counts.
                None if index < messages // 3 else index,
            )
        )
    for worker, path in enumerate(shards(directory)):
        with closing(connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            for number, user in rows[worker]["users"]:
                newest = max(head[user], purged[user])
                through = generator.randint(purged[user], newest)
                if newest > through + 2:
                    rows[worker]["acknowledged"].append((number, through + 2))
                connection.execute(
                    "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, 0, 0)",
                    (
                        *(number, user, slot_of(user), f"User {user[:4]}", generator.random() < 0.5),
                        *(f"{generator.getrandbits(48):012x}", through, purged[user], START + number),
                        generator.randint(purged[user], newest),
                    ),
                )
            connection.executemany(
                "INSERT INTO chats (number, user, peer, peer_name, confirmed, written, active_at, hidden, muted)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows[worker]["chats"],
            )
            connection.executemany(
                "INSERT INTO messages (mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows[worker]["messages"],
            )
            connection.executemany("INSERT INTO acknowledged VALUES (?, ?)", rows[worker]["acknowledged"])
            connection.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)", rows[worker]["blocks"])
            connection.executemany("INSERT INTO hook_calls VALUES (?, ?, ?, ?)", rows[worker]["hook_calls"])
            _sum(connection)
            _mark(connection)
            connection.execute("COMMIT")
    return ids


def _sum(connection: sqlite3.Connection) -> None:
    """What chats have of the messages up to `users.summed_through`; a third of them has been read up to some message."""
    connection.execute(
        "UPDATE chats SET summed_through = (SELECT summed_through FROM users WHERE users.number = user)"
    )
    connection.execute(
        "UPDATE chats SET summed_through = summed_through + 1 WHERE number % 4 = 0"
        " AND summed_through < (SELECT max(seq) FROM messages WHERE mailbox = user)"
    )
    connection.execute(
        "UPDATE chats SET read_through = coalesce((SELECT seq FROM messages WHERE chat = chats.number AND mailbox > 0"
        " ORDER BY seq LIMIT 1 OFFSET 3), 0) WHERE number % 3 = 0"
    )
    counted = "FROM messages WHERE chat = chats.number AND mailbox > 0 AND seq <= chats.summed_through"
    connection.execute(
        f"UPDATE chats SET newest = (SELECT coalesce(max(seq), 0) {counted}),"  # noqa: S608
        f" active_at = (SELECT max(active_at, coalesce(max(sent_at), 0)) {counted}),"
        f" unread = (SELECT count(*) {counted} AND seq > chats.read_through)"
    )


def _mark(connection: sqlite3.Connection) -> None:
    """A clock that has run for 40 days, and what it says of the messages: a server ran for half of the time."""
    connection.execute(
        "UPDATE clock SET passed = ?, ran = ?, wall = ?", (40 * DAY_MS, 20 * DAY_MS, START + 40 * DAY_MS)
    )
    passed = f"max(sent_at) OVER (ORDER BY number) - {START}"
    marks = f"SELECT number, {passed}, ({passed}) / 2 FROM messages"  # noqa: S608
    connection.execute(f"INSERT INTO marks {marks}")


def content(directory: Path) -> Content:
    """Everything in the files that hold."""
    found = Content({}, {}, {}, {}, {}, {}, {})
    for path in shards(directory):
        with closing(connect(path)) as connection:
            for number, user, *rest in connection.execute(_USERS):
                assert user not in found.users, "a user is in two files"
                found.users[user] = tuple(rest)
                found.chats[user] = _rows(connection, _CHATS, number)
                found.mailboxes[user] = _rows(connection, _MESSAGES, number)
                found.withheld[user] = _rows(connection, _MESSAGES, -number)
                found.blocks[user] = _rows(connection, _BLOCKS, number)
                found.hook_calls[user] = _rows(connection, _HOOK_CALLS, number)
                found.acknowledged[user] = [
                    seq
                    for (seq,) in _rows(
                        connection, "SELECT seq FROM acknowledged WHERE mailbox = ? ORDER BY seq", number
                    )
                ]
    return found


def times(path: Path) -> Iterator[int]:
    """When the messages in a file were sent, in the order in which they lie there."""
    with closing(connect(path)) as connection:
        yield from (
            sent_at for (sent_at,) in connection.execute("SELECT sent_at FROM messages ORDER BY number")
        )


def _rows(connection: sqlite3.Connection, statement: str, number: int) -> list[tuple[Any, ...]]:
    return connection.execute(statement, (number,)).fetchall()
