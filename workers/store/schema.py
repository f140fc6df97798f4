"""The tables of one shard's database. To change one: change it here, and add a migration in ``workers/store/migrations``.

A message is one row, in the recipient's mailbox; a conversation is what two users have in each other's mailboxes. Rows of messages are
only ever appended, so they lie in the order in which they came, which is also the order in which retention removes
them. Numbers are given by the one process that has the file open, so nothing has to be asked before a row can be written.

A message that is withheld from its recipient (D32) is a row like all others, but in a mailbox of its own, whose number is that of the
recipient with a minus: so no statement that reads a mailbox finds it.

What a list of chats shows of a chat (D30) is a sum over messages. It is stored in the row of the chat as of some position, and what came
behind that is added when a user is loaded: so a message does not have to write the row of its chat.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "%(table_name)s_by_%(column_0_N_name)s",
        "uq": "%(table_name)s_by_%(column_0_N_name)s",
        "fk": "%(table_name)s_%(column_0_name)s_in_%(referred_table_name)s",
        "pk": "%(table_name)s_key",
    }
)

#: A 64-bit key that SQLite takes as its rowid, which it does only under the name INTEGER.
_Number: Final = BigInteger().with_variant(Integer, "sqlite")

#: In place of the chat of a message that was taken back for good: only its position is left, and nobody is shown it.
NO_CHAT: Final = 0

users: Final = Table(
    "users",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("user_id", Text, nullable=False, unique=True),
    #: ``core.placement.slot_of(user_id)``: what a change of WORKERS moves.
    Column("slot", Integer, nullable=False),
    Column("display_name", Text, nullable=False),
    #: Whether the user acknowledges explicitly (D12).
    Column("acknowledges", Boolean, nullable=False),
    #: Names the mailbox in cursors (D13).
    Column("epoch", Text, nullable=False),
    #: Every message up to this position is acknowledged.
    Column("acknowledged_through", BigInteger, nullable=False),
    #: Messages up to this position are gone.
    Column("purged_through", BigInteger, nullable=False),
    #: When the user was saved last, in milliseconds since 1970: for people to read.
    Column("seen_at", BigInteger, nullable=False),
    #: The same by ``workers.store.retention_clock``: what a user without chats is forgotten by (D23).
    Column("left_at", BigInteger, nullable=False, server_default="0"),
    #: All messages up to this position are counted in the rows of the user's chats.
    Column("summed_through", BigInteger, nullable=False, server_default="0"),
    #: Whether an operator has made the user, who is never forgotten then, and whether one has banned the user (D36).
    Column("kept", Boolean, nullable=False, server_default="0"),
    Column("banned", Boolean, nullable=False, server_default="0"),
    #: Whether the user is being deleted (D36): what is there is being removed, and this row goes last.
    Column("deleting", Boolean, nullable=False, server_default="0"),
)
#: Those few are looked for at each start.
Index("users_being_deleted", users.c.number, sqlite_where=text("deleting"))

chats: Final = Table(
    "chats",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("user", BigInteger, ForeignKey(users.c.number, ondelete="CASCADE"), nullable=False),
    Column("peer", Text, nullable=False),
    Column("peer_name", Text, nullable=False),
    #: Whether a device of the user has shown that it knows of the chat (D7), and whether the user has ever written in it (D20).
    Column("confirmed", Boolean, nullable=False),
    Column("written", Boolean, nullable=False, server_default="1"),
    #: When there was a message of either side last, in milliseconds since 1970 (D30); 0 if it is not known.
    Column("active_at", BigInteger, nullable=False, server_default="0"),
    #: Position of the peer's newest message, and up to where the user has read (D31).
    Column("newest", BigInteger, nullable=False, server_default="0"),
    Column("read_through", BigInteger, nullable=False, server_default="0"),
    #: How many messages of the peer are behind that and have not been removed; below 0 when it is not known.
    Column("unread", BigInteger, nullable=False, server_default="0"),
    #: `active_at`, `newest` and `unread` count the messages of the mailbox up to this position; see also `users.summed_through`.
    Column("summed_through", BigInteger, nullable=False, server_default="0"),
    Column("hidden", Boolean, nullable=False, server_default="0"),
    Column("muted", Boolean, nullable=False, server_default="0"),
    UniqueConstraint("user", "peer"),
)

messages: Final = Table(
    "messages",
    metadata,
    Column("number", _Number, primary_key=True),
    #: The recipient's row in `users`; below 0 of a message that is withheld from the recipient.
    Column("mailbox", BigInteger, nullable=False),
    #: Position in the mailbox: 1, 2, 3 ...; of a message that is withheld its Lamport count.
    Column("seq", BigInteger, nullable=False),
    #: The recipient's record of the chat, which knows the sender.
    Column("chat", BigInteger, nullable=False),
    #: 64 bits of the message id. The index over it is what recognises repeats, and is a third of the size of one over the text.
    Column("id_hash", BigInteger, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("content", Text, nullable=False),
    #: Milliseconds since 1970.
    Column("sent_at", BigInteger, nullable=False),
    #: Whether the sender wants receipts (D11).
    Column("receipts", Boolean, nullable=False),
    #: The place of the message between those of the other direction (``core.chat.mailbox``); NULL in rows from before there were counts.
    Column("lamport", BigInteger),
)
Index(None, messages.c.mailbox, messages.c.seq, unique=True)
Index(None, messages.c.chat, messages.c.id_hash, unique=True)

#: The one row of ``workers.store.retention_clock.ClockState``.
clock: Final = Table(
    "clock",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("passed", BigInteger, nullable=False),
    Column("ran", BigInteger, nullable=False),
    Column("owed", BigInteger, nullable=False),
    Column("wall", BigInteger),
)

#: By when, on that clock, the messages with numbers up to this one had been stored, and how much of it a server had run by then. Both
#: only grow from mark to mark. A time in each message would cost more, since there are few marks, a thousand within the retention.
marks: Final = Table(
    "marks",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("passed", BigInteger, nullable=False),
    Column("ran", BigInteger, nullable=False),
)

#: The number of the last record of the commit log whose changes are in the other tables (``workers.store.commit_log``), in one row; 0 while
#: there has never been a log.
commit_log: Final = Table(
    "commit_log",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("folded", BigInteger, nullable=False),
    #: How many syncs there have been for the folds before them.
    Column("syncs", BigInteger, nullable=False),
)

#: Acknowledged positions beyond `users.acknowledged_through`.
acknowledged: Final = Table(
    "acknowledged",
    metadata,
    Column("mailbox", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

#: What stands between a user and a peer (D32): whether either has blocked the other, and how far the user had read before blocking.
blocks: Final = Table(
    "blocks",
    metadata,
    Column(
        "user",
        BigInteger,
        ForeignKey(users.c.number, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("peer", Text, primary_key=True),
    Column("by_user", Boolean, nullable=False),
    Column("by_peer", Boolean, nullable=False),
    Column("read_through", BigInteger, nullable=False),
    #: How many messages of the peer have been withheld.
    Column("withheld", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Chats of users without a connection in which a message waits, for the hook (D33); a row goes when the user is back.
hook_calls: Final = Table(
    "hook_calls",
    metadata,
    Column(
        "user",
        BigInteger,
        ForeignKey(users.c.number, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("peer", Text, primary_key=True),
    #: When the message was found to wait, in milliseconds since 1970.
    Column("since", BigInteger, nullable=False),
    #: When the next attempt is due, in the same; NULL when there is none any more: the hook was told, or it was given up.
    Column("due", BigInteger),
    sqlite_with_rowid=False,
)
Index(None, hook_calls.c.due, sqlite_where=hook_calls.c.due.is_not(None))
