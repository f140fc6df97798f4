"""Which users are being deleted while the server runs (D36)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the mark, and the index that finds those few who have it."""
    op.add_column("users", sa.Column("deleting", sa.Boolean, nullable=False, server_default="0"))
    op.create_index("users_being_deleted", "users", ["number"], sqlite_where=sa.text("deleting"))
