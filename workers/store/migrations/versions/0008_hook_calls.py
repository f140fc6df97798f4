"""What the hook is told of users who are away while a message waits (D33)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "hook_calls",
        sa.Column("user", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.PrimaryKeyConstraint("user", "peer", name=op.f("hook_calls_key")),
        sa.ForeignKeyConstraint(
            ["user"], ["users.number"], name=op.f("hook_calls_user_in_users"), ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("hook_calls_by_due", "hook_calls", ["due"], sqlite_where=sa.text("due IS NOT NULL"))
