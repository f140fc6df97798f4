"""A clock of its own for retention, which the time of day can't move at will (D20).

How old the messages are that are there, only their times tell, and these are not to be believed word for word. So the clock begins
when the newest of them was sent: what has passed since then is owed, and counts slowly. Where a time is later than those behind it, these
hold. No more than a thousand messages are looked at, so this takes no time. What waits to be acknowledged waits anew.
"""

from __future__ import annotations

import time
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_MARKS: Final = 1000


def upgrade() -> None:
    """Create the tables, and fill them from the messages that are there."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("users", sa.Column("left_at", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "clock",
        sa.Column("number", number, nullable=False),
        sa.Column("passed", sa.BigInteger, nullable=False),
        sa.Column("ran", sa.BigInteger, nullable=False),
        sa.Column("owed", sa.BigInteger, nullable=False),
        sa.Column("wall", sa.BigInteger),
        sa.PrimaryKeyConstraint("number", name=op.f("clock_key")),
    )
    marks = op.create_table(
        "marks",
        sa.Column("number", number, autoincrement=False, nullable=False),
        sa.Column("passed", sa.BigInteger, nullable=False),
        sa.Column("ran", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("marks_key")),
    )
    rows = _samples(op.get_bind())
    wall = None
    if rows:
        wall = latest = min(rows[-1][1], time.time_ns() // 1_000_000)
        passed = []
        for _, sent_at in reversed(rows):
            latest = min(latest, sent_at)
            passed.append(latest - wall)
        op.bulk_insert(
            marks,
            [
                {"number": number, "passed": age, "ran": 0}
                for (number, _), age in zip(rows, reversed(passed), strict=True)
            ],
        )
    clock = sa.table("clock", *(sa.column(name) for name in ("number", "passed", "ran", "owed", "wall")))
    op.execute(clock.insert().values(number=1, passed=0, ran=0, owed=0, wall=wall))


def _samples(connection: sa.Connection) -> list[tuple[int, int]]:
    """Return (number, when it was sent) of messages, among them the newest, from the oldest on."""
    messages = sa.table("messages", sa.column("number"), sa.column("sent_at"))
    ends = sa.select(sa.func.min(messages.c.number), sa.func.max(messages.c.number))
    first, last = connection.execute(ends).one()
    if last is None:
        return []
    step = (last - first) // _MARKS + 1
    rows = sa.select(messages.c.number, messages.c.sent_at)
    wanted = rows.where(messages.c.number.in_([*range(first, last, step), last]))
    return [(number, sent_at) for number, sent_at in connection.execute(wanted.order_by(messages.c.number))]
