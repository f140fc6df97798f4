"""A new shard's file: the tables as they are today, at once and with nothing but SQLite.

Going through all migrations would make the same file, but takes Alembic and SQLAlchemy, and these half a second to import: most of what a
server's first start would wait for. A test compares what the two ways make. To change a table, see ``workers.store.migrations``.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from workers.store.data_directory import file_uri
from workers.store.migrations import REVISION

#: Bytes of a page of a new file.
PAGE_SIZE: Final = 4096

_TABLES: Final = """
BEGIN IMMEDIATE;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE users (
    number INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    slot INTEGER NOT NULL,
    display_name TEXT NOT NULL,
    acknowledges BOOLEAN NOT NULL,
    epoch TEXT NOT NULL,
    acknowledged_through BIGINT NOT NULL,
    purged_through BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    left_at BIGINT DEFAULT '0' NOT NULL,
    summed_through BIGINT DEFAULT '0' NOT NULL,
    kept BOOLEAN DEFAULT '0' NOT NULL,
    banned BOOLEAN DEFAULT '0' NOT NULL,
    deleting BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT users_key PRIMARY KEY (number),
    CONSTRAINT users_by_user_id UNIQUE (user_id)
);
CREATE TABLE chats (
    number INTEGER NOT NULL,
    user BIGINT NOT NULL,
    peer TEXT NOT NULL,
    peer_name TEXT NOT NULL,
    confirmed BOOLEAN NOT NULL,
    written BOOLEAN DEFAULT '1' NOT NULL,
    active_at BIGINT DEFAULT '0' NOT NULL,
    newest BIGINT DEFAULT '0' NOT NULL,
    read_through BIGINT DEFAULT '0' NOT NULL,
    unread BIGINT DEFAULT '0' NOT NULL,
    summed_through BIGINT DEFAULT '0' NOT NULL,
    hidden BOOLEAN DEFAULT '0' NOT NULL,
    muted BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT chats_key PRIMARY KEY (number),
    CONSTRAINT chats_user_in_users FOREIGN KEY(user) REFERENCES users (number) ON DELETE CASCADE,
    CONSTRAINT chats_by_user_peer UNIQUE (user, peer)
);
CREATE TABLE messages (
    number INTEGER NOT NULL,
    mailbox BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    chat BIGINT NOT NULL,
    id_hash BIGINT NOT NULL,
    message_id TEXT NOT NULL,
    content TEXT NOT NULL,
    sent_at BIGINT NOT NULL,
    receipts BOOLEAN NOT NULL,
    lamport BIGINT,
    CONSTRAINT messages_key PRIMARY KEY (number)
);
CREATE UNIQUE INDEX messages_by_mailbox_seq ON messages (mailbox, seq);
CREATE UNIQUE INDEX messages_by_chat_id_hash ON messages (chat, id_hash);
CREATE TABLE acknowledged (
    mailbox BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT acknowledged_key PRIMARY KEY (mailbox, seq)
) WITHOUT ROWID;
CREATE TABLE clock (
    number INTEGER NOT NULL,
    passed BIGINT NOT NULL,
    ran BIGINT NOT NULL,
    owed BIGINT NOT NULL,
    wall BIGINT,
    CONSTRAINT clock_key PRIMARY KEY (number)
);
INSERT INTO clock VALUES (1, 0, 0, 0, NULL);
CREATE TABLE marks (
    number INTEGER NOT NULL,
    passed BIGINT NOT NULL,
    ran BIGINT NOT NULL,
    CONSTRAINT marks_key PRIMARY KEY (number)
);
CREATE TABLE commit_log (
    number INTEGER NOT NULL,
    folded BIGINT NOT NULL,
    syncs BIGINT NOT NULL,
    CONSTRAINT commit_log_key PRIMARY KEY (number)
);
INSERT INTO commit_log VALUES (1, 0, 0);
CREATE TABLE blocks (
    user BIGINT NOT NULL,
    peer TEXT NOT NULL,
    by_user BOOLEAN NOT NULL,
    by_peer BOOLEAN NOT NULL,
    read_through BIGINT NOT NULL,
    withheld BIGINT NOT NULL,
    CONSTRAINT blocks_key PRIMARY KEY (user, peer),
    CONSTRAINT blocks_user_in_users FOREIGN KEY(user) REFERENCES users (number) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE hook_calls (
    user BIGINT NOT NULL,
    peer TEXT NOT NULL,
    since BIGINT NOT NULL,
    due BIGINT,
    CONSTRAINT hook_calls_key PRIMARY KEY (user, peer),
    CONSTRAINT hook_calls_user_in_users FOREIGN KEY(user) REFERENCES users (number) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX hook_calls_by_due ON hook_calls (due) WHERE due IS NOT NULL;
CREATE INDEX users_being_deleted ON users (number) WHERE deleting;
"""


def create(path: Path) -> None:
    """Make a file that has no tables yet into an empty database, in one transaction. Raises sqlite3.Error."""
    with closing(sqlite3.connect(file_uri(path, "rwc"), uri=True, isolation_level=None)) as connection:
        # Both have to be said before there are tables, and are kept in the file.
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
        connection.execute("COMMIT")
