"""The order of what two users wrote to each other, without a clock (D14).

Rows that are there have NULL: SQLite adds such a column without touching a row. They are ordered by their times, before all others.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("messages", sa.Column("lamport", sa.BigInteger))
