"""A file of the version before reading was per chat, and the commit log that a killed process of it has left (D30, D31)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.wire import codec
from tests.workers.log_files import query
from tests.workers.store_driver import NOON, StoreDriver
from tests.workers.test_store_database import old_file
from workers.store import commit_log
from workers.store.database import upgrade
from workers.store.log_record import Record, encode
from workers.store.rows import id_hash
from workers.store.segment import segment_paths

#: Noon, in milliseconds since 1970.
_NOON_MS = int(NOON * 1000)


def message(number: int, mailbox: int, seq: int, chat: int, read: int = 0) -> tuple[Any, ...]:
    """A row of a message, sent so many seconds after noon as its position says."""
    name = f"m{number}"
    return number, mailbox, seq, chat, id_hash(name), name, "hello", _NOON_MS + 1000 * seq, 0, read, number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of revision 0005: Bob has chats with Alice, Carol and Dave; what he has read, and acknowledged; Erin has nothing."""
    path = tmp_path / "shard.db"
    old_file(path, "0005")
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO users VALUES (?, ?, 0, ?, 0, ?, ?, ?, 0, 0)",
            [
                (1, "bob", "Bob", "0123456789ab", 5, 0),
                (2, "erin", "Erin", "0123456789ac", 0, 0),
                (3, "fay", "Fay", "0123456789ad", 9, 9),
            ],
        )
        connection.executemany(
            "INSERT INTO chats VALUES (?, ?, ?, ?, 1, 1)",
            [
                (1, 1, "alice", "Alice"),
                (2, 1, "carol", "Carol"),
                (3, 1, "dave", "Dave"),
                (4, 3, "bob", "Bob"),
            ],
        )
        rows = [
            *(message(1, 1, 2, 1), message(2, 1, 3, 1, read=1), message(3, 1, 4, 2), message(4, 1, 5, 1)),
            *(message(5, 1, 6, 2), message(6, 1, 7, 1), message(7, 1, 8, 2, read=1), message(8, 1, 9, 2)),
        ]
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        # What is left of somebody who has been purged.
        connection.execute("INSERT INTO messages VALUES (9, 1, 10, 0, 1, '', '', 0, 0, 0, 9)")
        connection.execute("INSERT INTO messages VALUES (0, 1, 1, 0, 2, '', '', 0, 0, 0, 0)")
        connection.execute("INSERT INTO acknowledged VALUES (1, 10)")
        connection.execute("UPDATE commit_log SET folded = 7")
        connection.commit()
    return path


def chats(path: Path) -> list[tuple[Any, ...]]:
    return query(path, "SELECT peer, newest, read_through, unread, summed_through, active_at FROM chats")


def test_what_is_there_is_counted(path: Path) -> None:
    """What was acknowledged is not unread, although nobody has said that it was read."""
    upgrade(path)
    assert chats(path) == [
        ("alice", 7, 3, 1, 10, _NOON_MS + 7000),
        ("carol", 9, 8, 1, 10, _NOON_MS + 9000),
        ("dave", 0, 0, 0, 10, 0),
        ("bob", 0, 0, 0, 9, 0),
    ]
    assert query(path, "SELECT user_id, summed_through FROM users") == [("bob", 10), ("erin", 0), ("fay", 9)]
    assert query(path, "SELECT hidden + muted FROM chats") == [(0,)] * 4
    assert query(path, "SELECT count(*) FROM messages") == [(10,)]
    assert query(path, "PRAGMA foreign_key_check") == []


def test_a_sqlite_that_does_not_drop_columns_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is copied."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 35, 4))
    before = query(path, "SELECT number, mailbox, seq, chat, message_id FROM messages")
    upgrade(path)
    assert query(path, "SELECT number, mailbox, seq, chat, message_id FROM messages") == before
    assert "read" not in [name for _, name, *_ in query(path, "PRAGMA table_info(messages)")]
    indexes = [name for _, name, *_ in query(path, "PRAGMA index_list(messages)")]
    assert sorted(indexes) == ["messages_by_chat_id_hash", "messages_by_mailbox_seq"]


def test_the_store_goes_on_with_it(path: Path) -> None:
    driver = StoreDriver("sqlite", path)
    bob = driver.loaded("bob")
    assert {chat.peer: (chat.newest, chat.read_through, chat.active_at) for chat in bob.chats.values()} == {
        "alice": (7, 3, b"2024-01-01T12:00:07.000Z"),
        "carol": (9, 8, b"2024-01-01T12:00:09.000Z"),
        "dave": (0, 0, b""),
    }
    assert [message.seq for message in driver.read(bob, 0) if message.read] == [2, 3, 4, 6, 8]
    driver.append(bob, "dave", "new")
    assert [chat.unread for chat in driver.loaded("bob").chats.values()] == [1, 1, 1]
    driver.close()


def leave_log(
    path: Path, records: Sequence[tuple[Sequence[tuple[Any, ...]], Sequence[Sequence[Any]]]]
) -> None:
    """Write what a killed process has left: of each commit rows of messages, and other changes."""
    content = b""
    for number, (rows, changes) in enumerate(records, 8):
        texts = [codec.to_json([*row[1:9], row[10]]) for row in rows]
        others = codec.to_json(changes) if changes else b""
        record = Record(len(rows), b",".join(texts), sum(map(len, changes)), others)
        record.number = number
        content += encode(record)
    segment_paths(path)[0].write_bytes(content)


@pytest.mark.parametrize("slice_rows", [1, 512])
def test_a_log_that_was_left_is_folded(path: Path, monkeypatch: pytest.MonkeyPatch, slice_rows: int) -> None:
    """It has messages, acknowledgements, chats, one that was confirmed, and messages that were read."""
    monkeypatch.setattr(commit_log, "SLICE_ROWS", slice_rows)
    new_chat, renamed = [5, 2, "bob", "Bob", 0, 1], [1, 1, "alice", "Alicia", 1, 1]
    leave_log(
        path,
        [
            ([message(10, 1, 11, 1), message(11, 1, 12, 2)], []),
            # [users, chats, through, ahead, confirmed, reads]
            ([message(12, 1, 13, 1)], [[], [new_chat, renamed], [], [], [], []]),
            ([message(13, 2, 1, 5), message(14, 2, 2, 5)], [[], [], [[1, 7]], [[1, 9]], [5], [[1, 11]]]),
            ([], [[[2, "erin", 0, "Erin Again", 1, "0123456789ac", 0, 0, 5, 5]], [], [[2, 1]], [], [], []]),
            ([message(15, 2, 3, 5), message(16, 1, 14, 3)], []),
        ],
    )
    driver = StoreDriver("sqlite", path)
    bob, erin = driver.loaded("bob"), driver.loaded("erin")
    shown = {
        chat.peer: (chat.peer_name, chat.newest, chat.read_through, chat.unread)
        for chat in bob.chats.values()
    }
    assert shown == {
        "alice": ("Alicia", 13, 11, 1),
        "carol": ("Carol", 12, 8, 2),
        "dave": ("Dave", 14, 0, 1),
    }
    assert bob.mailbox.acknowledged_through == 7
    assert bob.chats["dave"].active_at == b"2024-01-01T12:00:14.000Z"
    assert (erin.display_name, erin.acknowledges) == ("Erin Again", True)
    chat = erin.chats["bob"]
    assert (chat.confirmed, chat.newest, chat.unread) == (True, 3, 2), "one is acknowledged"
    driver.append(bob, "alice", "m12", "next")
    driver.settle()
    assert driver.log == [("m12", "repeat"), ("next", 15)]
    driver.close()
    assert not any(segment.exists() for segment in segment_paths(path))


def test_a_log_with_messages_only(path: Path) -> None:
    """They are counted when the user is loaded."""
    leave_log(path, [([message(10, 1, 11, 1)], []), ([message(11, 1, 12, 1)], [])])
    driver = StoreDriver("sqlite", path)
    alice = driver.loaded("bob").chats["alice"]
    assert (alice.newest, alice.read_through, alice.unread) == (12, 3, 3)
    driver.close()
