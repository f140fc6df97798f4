"""Chats are confirmed rather than announced, and know whether their user has ever written in them.

What was announced before counts as confirmed. Who had a chat before is no stranger: whether the user wrote in it, only the other side's
mailbox could tell, which may be in another file, and nobody who could write yesterday is to be refused today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Change the table of chats in place."""
    op.alter_column("chats", "announced", new_column_name="confirmed")
    op.add_column("chats", sa.Column("written", sa.Boolean, nullable=False, server_default="1"))
