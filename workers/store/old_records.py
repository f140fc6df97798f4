"""What is in a commit log that the version before has left: a server that was killed, and started again as this version.

In its records a row of a chat ends with `written`, and a message that was read has a mark of its own. The file has been upgraded by
then, and its sums are without what is in the log: so what concerns a user of whom the log has more than messages is counted anew. Messages
alone are counted when the user is loaded, as all others are.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.log_record import Changes


def fold_old(database: Database, changes: Sequence[Changes]) -> None:
    """Write what only the version before said, once everything else is written, within a transaction. Raises sqlite3.Error."""
    old = [change for change in changes if change.blocks is None]
    if not old:
        return
    confirmed = [chat for change in old for chat in change.confirmed]
    if confirmed:
        database.execute(statements.CONFIRM_CHATS, codec.to_json(confirmed))
    reads = [read for change in old for read in change.reads]
    if reads:
        database.execute(statements.MARK_READ, codec.to_json(reads))
    positions = [*reads, *(position for change in old for position in (*change.through, *change.ahead))]
    mailboxes = codec.to_json(sorted({mailbox for mailbox, _ in positions}))
    database.execute(statements.COUNT_CHATS, mailboxes)
    database.execute(statements.COUNT_USERS, mailboxes)
