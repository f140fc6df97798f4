"""Users, their chats, and the messages in their mailboxes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "users",
        sa.Column("number", number, autoincrement=False, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("acknowledges", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("acknowledged_through", sa.BigInteger, nullable=False),
        sa.Column("purged_through", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("users_key")),
        sa.UniqueConstraint("user_id", name=op.f("users_by_user_id")),
    )
    op.create_table(
        "chats",
        sa.Column("number", number, autoincrement=False, nullable=False),
        sa.Column("user", sa.BigInteger, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("peer_name", sa.Text, nullable=False),
        sa.Column("announced", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("chats_key")),
        sa.ForeignKeyConstraint(
            ["user"], ["users.number"], name=op.f("chats_user_in_users"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("user", "peer", name=op.f("chats_by_user_peer")),
    )
    op.create_table(
        "messages",
        sa.Column("number", number, nullable=False),
        sa.Column("mailbox", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("chat", sa.BigInteger, nullable=False),
        sa.Column("id_hash", sa.BigInteger, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
        sa.Column("receipts", sa.Boolean, nullable=False),
        sa.Column("read", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("messages_key")),
    )
    op.create_index(op.f("messages_by_mailbox_seq"), "messages", ["mailbox", "seq"], unique=True)
    op.create_index(op.f("messages_by_chat_id_hash"), "messages", ["chat", "id_hash"], unique=True)
    op.create_table(
        "acknowledged",
        sa.Column("mailbox", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("mailbox", "seq", name=op.f("acknowledged_key")),
        sqlite_with_rowid=False,
    )
