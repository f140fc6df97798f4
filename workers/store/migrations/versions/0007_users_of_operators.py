"""Users whom an operator has made, and users whom one has banned (D36). Until now there were neither."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns."""
    for name in ("kept", "banned"):
        op.add_column("users", sa.Column(name, sa.Boolean, nullable=False, server_default="0"))
