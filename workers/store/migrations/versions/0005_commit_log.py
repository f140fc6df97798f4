"""How far the commit log has been folded into the file, see ``workers.store.commit_log``.

Nothing else changes: a file from before has no commit log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table, with its one row."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "commit_log",
        sa.Column("number", number, nullable=False),
        sa.Column("folded", sa.BigInteger, nullable=False),
        sa.Column("syncs", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("commit_log_key")),
    )
    op.execute("INSERT INTO commit_log VALUES (1, 0, 0)")
