"""What a list of chats shows, how far a user has read in each, and who has blocked whom (D30, D31, D32).

Reading was a mark of each message, and is cumulative now: everything before the last one that was read counts as read. What a
device has acknowledged before does not become unread, although nobody may have said that it was read.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

#: The first version of SQLite that drops a column without the defects that its first versions had in this.
_DROPS_COLUMNS = (3, 35, 5)


def upgrade() -> None:
    """Add the columns and the table, count what is there, and drop the marks."""
    op.add_column("users", _number("summed_through"))
    for name in ("active_at", "newest", "read_through", "unread", "summed_through"):
        op.add_column("chats", _number(name))
    for name in ("hidden", "muted"):
        op.add_column("chats", sa.Column(name, sa.Boolean, nullable=False, server_default="0"))
    op.create_table(
        "blocks",
        sa.Column("user", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("by_user", sa.Boolean, nullable=False),
        sa.Column("by_peer", sa.Boolean, nullable=False),
        sa.Column("read_through", sa.BigInteger, nullable=False),
        sa.Column("withheld", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user", "peer", name=op.f("blocks_key")),
        sa.ForeignKeyConstraint(
            ["user"], ["users.number"], name=op.f("blocks_user_in_users"), ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    _count()
    if sqlite3.sqlite_version_info >= _DROPS_COLUMNS:
        op.drop_column("messages", "read")
    else:
        with op.batch_alter_table("messages") as messages:
            messages.drop_column("read")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _count() -> None:
    """Count the messages that are there. Each statement goes once through those that it needs."""
    # The sums keep SQLite from going through the index of chats, with a look at the table for each message.
    op.execute(
        "UPDATE chats SET newest = sums.newest, active_at = sums.active_at, read_through = sums.read_through FROM ("
        "SELECT chat, max(seq) AS newest, max(sent_at) AS active_at, max(iif(read, seq, 0)) AS read_through"
        " FROM messages GROUP BY chat + 0) AS sums WHERE chats.number = sums.chat"
    )
    op.execute(
        "UPDATE chats SET unread = sums.unread FROM ("
        "SELECT known.number, count(*) AS unread FROM users"
        " JOIN messages ON messages.mailbox = users.number AND messages.seq > users.acknowledged_through"
        " JOIN chats AS known ON known.number = messages.chat AND known.read_through < messages.seq"
        " GROUP BY known.number) AS sums WHERE chats.number = sums.number"
    )
    op.execute(
        "UPDATE users SET summed_through = max(purged_through, coalesce("
        "(SELECT max(seq) FROM messages WHERE mailbox = users.number), 0))"
    )
    op.execute(
        "UPDATE chats SET summed_through = users.summed_through FROM users WHERE users.number = chats.user"
    )
