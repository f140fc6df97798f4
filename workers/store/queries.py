"""Where the SQL of the store comes from: made from the tables in ``workers.store.schema`` and written to ``workers.store.statements``.

A worker reads what was written, since SQLAlchemy takes as long to import as all the rest of a worker, and 15 MiB. After a change of a
statement: ``python -m workers.store.queries``. A test compares the two.

Every statement takes any number of rows as *one* JSON parameter and gives its result as *one* JSON value (``workers.store.json_sql``). That
is what keeps the store out of the event loop's way: the driver releases Python's lock while SQLite works, and takes it back once a row;
beside a busy loop each time costs milliseconds.

Text from users travels in parameters only, and a parameter is never part of the SQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BinaryExpression,
    Boolean,
    ColumnElement,
    Integer,
    LargeBinary,
    Subquery,
    and_,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import sqlite

from core.wire.protocol import REPLAY_WINDOW_BYTES
from workers.store import retention_queries
from workers.store.json_sql import field_of, gathered, given_rows, json_array, nested, number, text_of
from workers.store.schema import NO_CHAT, acknowledged, chats, commit_log, messages, users

#: Rows of messages that one `READ` gives at most for each mailbox.
READ_MAX: Final = 256
#: Messages of which one `SENDERS` gives the senders: some milliseconds.
SENDERS_MAX: Final = 4096
#: Messages up to which a chat is small: going through all of it is quicker than going through the mailbox.
SMALL_CHAT: Final = 1000
#: Later than every time of day that a message may have, in milliseconds since 1970 (``core.wire.timestamps``: up to the year 9999).
_AFTER_ALL_TIMES: Final = 10**15
#: What a message takes in its frame beyond its content, about.
_FRAME_OVERHEAD: Final = 210

# -- Writes --


#: The columns of a message that are given with it, in the order of a row; `read` is 0.
_GIVEN: Final = (
    *(messages.c.mailbox, messages.c.seq, messages.c.chat, messages.c.id_hash, messages.c.message_id),
    *(messages.c.content, messages.c.sent_at, messages.c.receipts, messages.c.lamport),
)


def _append() -> str:
    given = given_rows()
    fields = [*(field_of(given, index) for index in range(len(_GIVEN))), number(0)]
    return text_of(messages.insert().from_select([*_GIVEN, messages.c.read], select(*fields)), "rows")


def _append_row() -> str:
    row = {column.name: bindparam(f"given_{column.name}", type_=Integer) for column in _GIVEN}
    return text_of(messages.insert().values(**row, read=number(0)), *(f"given_{name}" for name in row))


#: Rows of [mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport].
APPEND: Final = _append()
#: The fields of one such row: half as dear as JSON, which SQLite would take apart once for each field.
APPEND_ROW: Final = _append_row()


def _upsert(table: Any, columns: tuple[Any, ...], changing: tuple[Any, ...]) -> str:
    given = given_rows()
    fields = [field_of(given, index) for index in range(len(columns))]
    # The WHERE keeps SQLite from reading ON as that of a join.
    rows = select(*fields).where(literal_column("1", Boolean))
    insert = sqlite.insert(table).from_select(list(columns), rows)
    upsert = insert.on_conflict_do_update(
        index_elements=[table.c.number],
        set_={column.name: insert.excluded[column.name] for column in changing},
    )
    return text_of(upsert, "rows")


#: Rows of [number, user_id, slot, display_name, acknowledges, epoch, acknowledged_through, purged_through, seen_at,
#: left_at].
SAVE_USERS: Final = _upsert(
    users, tuple(users.c), (users.c.display_name, users.c.acknowledges, users.c.seen_at, users.c.left_at)
)
#: Rows of [number, user, peer, peer_name, confirmed, written].
SAVE_CHATS: Final = _upsert(chats, tuple(chats.c), (chats.c.peer_name, chats.c.confirmed, chats.c.written))


def _confirm_chats() -> str:
    given = given_rows()
    return text_of(
        update(chats).values(confirmed=number(1)).where(chats.c.number.in_(select(given.c.value))), "rows"
    )


#: Numbers of chats.
CONFIRM_CHATS: Final = _confirm_chats()


def _save_acknowledged() -> str:
    given = given_rows()
    statement = (
        update(users)
        .values(acknowledged_through=field_of(given, 1))
        .where(users.c.number == field_of(given, 0), users.c.acknowledged_through < field_of(given, 1))
    )
    return text_of(statement, "rows")


def _forget_acknowledged() -> str:
    given = given_rows()
    passed = select(acknowledged.c.mailbox, acknowledged.c.seq).join_from(
        given,
        acknowledged,
        (acknowledged.c.mailbox == field_of(given, 0)) & (acknowledged.c.seq <= field_of(given, 1)),
    )
    statement = delete(acknowledged).where(tuple_(acknowledged.c.mailbox, acknowledged.c.seq).in_(passed))
    return text_of(statement, "rows")


def _save_ahead() -> str:
    given = given_rows()
    rows = select(field_of(given, 0), field_of(given, 1)).where(literal_column("1", Boolean))
    insert = sqlite.insert(acknowledged).from_select([acknowledged.c.mailbox, acknowledged.c.seq], rows)
    return text_of(insert.on_conflict_do_nothing(), "rows")


#: Rows of [mailbox, acknowledged_through], both.
SAVE_ACKNOWLEDGED: Final = _save_acknowledged()
FORGET_ACKNOWLEDGED: Final = _forget_acknowledged()
#: Rows of [mailbox, seq].
SAVE_AHEAD: Final = _save_ahead()


def _save_read() -> str:
    given = given_rows()
    statement = (
        update(messages)
        .values(read=number(1))
        .where(messages.c.mailbox == field_of(given, 0), messages.c.seq == field_of(given, 1))
    )
    return text_of(statement, "rows")


#: Rows of [mailbox, seq].
SAVE_READ: Final = _save_read()


def _of_forgotten(column: ColumnElement[Any]) -> ColumnElement[bool]:
    given = given_rows()
    numbers = select(users.c.number).where(users.c.user_id.in_(select(given.c.value)))
    return column.in_(numbers)


#: User ids, all. A user's chats go with the user.
FORGET: Final = (
    text_of(delete(messages).where(_of_forgotten(messages.c.mailbox)), "rows"),
    text_of(delete(acknowledged).where(_of_forgotten(acknowledged.c.mailbox)), "rows"),
    text_of(delete(users).where(_of_forgotten(users.c.number)), "rows"),
)


def _drop_beyond() -> str:
    given = given_rows()
    beyond = select(messages.c.number).join_from(
        given, messages, (messages.c.mailbox == field_of(given, 0)) & (messages.c.seq > field_of(given, 1))
    )
    return text_of(delete(messages).where(messages.c.number.in_(beyond)), "rows")


#: Rows of [mailbox, head]: removes what is beyond the head.
DROP_BEYOND: Final = _drop_beyond()


def _others(table: Any, *columns: Any) -> Any:
    """Select the numbers of rows of `table` that have another number than a given row, and the same in `columns`.

    These follow the number in given rows.
    """
    given = given_rows()
    same = [column == field_of(given, index) for index, column in enumerate(columns, 1)]
    return select(table.c.number).join_from(given, table, and_(table.c.number != field_of(given, 0), *same))


#: Rows as for SAVE_USERS: removes users of the same ids and other numbers, with all that they have.
DROP_OTHER_USERS: Final = (
    text_of(delete(messages).where(messages.c.mailbox.in_(_others(users, users.c.user_id))), "rows"),
    text_of(delete(acknowledged).where(acknowledged.c.mailbox.in_(_others(users, users.c.user_id))), "rows"),
    text_of(delete(users).where(users.c.number.in_(_others(users, users.c.user_id))), "rows"),
)
#: Rows as for SAVE_CHATS: removes chats of the same two users and other numbers.
DROP_OTHER_CHATS: Final = (
    text_of(delete(chats).where(chats.c.number.in_(_others(chats, chats.c.user, chats.c.peer))), "rows"),
)
#: Writes something without changing anything, to see whether that can be done.
PROBE: Final = "PRAGMA user_version = 0"

# -- The commit log --

#: How far it has been folded; and the same to be kept.
LOAD_FOLDED: Final = text_of(select(commit_log.c.folded))
SAVE_FOLDED: Final = text_of(
    update(commit_log).values(folded=bindparam("new_folded", type_=Integer)), "new_folded"
)
#: Changes something, so that SQLite has something to sync.
COUNT_SYNC: Final = text_of(update(commit_log).values(syncs=commit_log.c.syncs + number(1)))

# -- Reads --

#: What a read gives of each message: [seq, chat, message_id, content, sent_at, receipts, read].
_MESSAGE: Final = (
    *(messages.c.seq, messages.c.chat, messages.c.message_id, messages.c.content),
    *(messages.c.sent_at, messages.c.receipts, messages.c.read),
)


def _fields(rows: Subquery) -> ColumnElement[Any]:
    return json_array(*(rows.c[column.name] for column in _MESSAGE))


def _find() -> str:
    given = given_rows()
    found = gathered(json_array(given.c.key, *_MESSAGE))
    joined = (messages.c.chat == field_of(given, 0)) & (messages.c.id_hash == field_of(given, 1))
    return text_of(select(found).join_from(given, messages, joined), "rows")


#: Rows of [chat, id_hash]; gives the messages, each with the index of its row before its fields.
FIND: Final = _find()


def _is_stored() -> str:
    given = given_rows()
    joined = (messages.c.chat == field_of(given, 0)) & (messages.c.id_hash == field_of(given, 1))
    found = select(messages.c.number).join_from(given, messages, joined)
    return text_of(found.limit(number(1)).offset(number(0)), "rows")


#: Rows of [chat, id_hash]; gives something if one of the messages is there.
IS_STORED: Final = _is_stored()


def _find_in_mailbox() -> str:
    given = given_rows()
    found = gathered(json_array(given.c.key, *_MESSAGE))
    peer = field_of(given, 1)
    of_user = (chats.c.user == field_of(given, 0)) & (peer.is_(None) | (chats.c.peer == peer))
    with_id = (messages.c.chat == chats.c.number) & (messages.c.id_hash == field_of(given, 2))
    joined = given.join(chats, of_user).join(messages, with_id)
    return text_of(select(found).select_from(joined), "rows")


#: Rows of [user, peer or null for all, id_hash]; gives the messages in the user's mailbox like `FIND`.
FIND_IN_MAILBOX: Final = _find_in_mailbox()


def _read() -> str:
    given = given_rows()
    rows = (
        select(*_MESSAGE)
        .where(
            messages.c.mailbox == field_of(given, 0),
            messages.c.seq > field_of(given, 1),
            messages.c.chat != number(NO_CHAT),
        )
        .order_by(messages.c.seq)
        .limit(number(READ_MAX))
        .offset(number(0))
        .correlate(given)
        .subquery("rows")
    )
    size = func.length(cast(rows.c.content, LargeBinary)) + number(_FRAME_OVERHEAD)
    # The bytes of all messages before this one.
    before = func.sum(size).over(order_by=rows.c.seq) - size
    sized = select(rows, before.label("before")).order_by(rows.c.seq).subquery("sized")
    window = select(gathered(_fields(sized))).where(sized.c.before < number(REPLAY_WINDOW_BYTES))
    return text_of(select(gathered(nested(window.correlate(given)))).select_from(given), "rows")


#: Rows of [mailbox, after]; gives a list of messages for each.
READ: Final = _read()


def _senders() -> str:
    rows = (
        select(messages.c.seq, messages.c.chat)
        .where(
            messages.c.mailbox == bindparam("mailbox"),
            messages.c.seq > bindparam("after"),
            messages.c.chat != number(NO_CHAT),
        )
        .order_by(messages.c.seq)
        .limit(number(SENDERS_MAX))
        .offset(number(0))
        .subquery("rows")
    )
    return text_of(select(gathered(json_array(rows.c.seq, rows.c.chat))), "mailbox", "after")


#: (mailbox, after); gives [seq, chat] of the messages behind that position, in order.
SENDERS: Final = _senders()


def _conversation() -> str:
    some = (
        select(messages.c.number)
        .where(messages.c.chat == chats.c.number)
        .limit(number(SMALL_CHAT + 1))
        .offset(number(0))
        .correlate(chats)
        .subquery("some")
    )
    count = select(func.count()).select_from(some).scalar_subquery()
    found = select(json_array(users.c.number, chats.c.number, count)).join_from(users, chats)
    return text_of(
        found.where(users.c.user_id == bindparam("user_id"), chats.c.peer == bindparam("peer")),
        *("user_id", "peer"),
    )


#: (user_id, peer); gives the numbers of the mailbox and of the chat, and how many messages the chat has, at most SMALL_CHAT + 1.
CONVERSATION: Final = _conversation()


def _history(*conditions: ColumnElement[bool]) -> str:
    # Rows from before there were counts come before all others, by their times.
    lamport = func.coalesce(messages.c.lamport, messages.c.sent_at - number(_AFTER_ALL_TIMES))
    rows = (
        select(*_MESSAGE, lamport.label("lamport"))
        .where(*conditions, messages.c.seq < bindparam("before"))
        .order_by(messages.c.seq.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(number(0))
        .subquery("rows")
    )
    return text_of(
        select(gathered(json_array(*rows.c))),
        *(str(condition.right.key) for condition in conditions if isinstance(condition, BinaryExpression)),
        *("before", "limit"),
    )


#: (chat, before, limit); gives the messages of a small chat, each with its Lamport count behind its fields, newest first: all are
#: looked at.
HISTORY_OF_SMALL: Final = _history(messages.c.chat == bindparam("chat"))
#: (mailbox, chat, before, limit); the same, going back through the mailbox. The sum keeps SQLite from the index of chats.
HISTORY: Final = _history(
    messages.c.mailbox == bindparam("mailbox"), messages.c.chat + number(0) == bindparam("chat")
)


def _load() -> str:
    given = given_rows()
    head = select(func.max(messages.c.seq)).where(messages.c.mailbox == users.c.number).scalar_subquery()
    newest = select(messages.c.lamport).where(messages.c.mailbox == users.c.number)
    lamport = newest.order_by(messages.c.seq.desc()).limit(number(1)).offset(number(0)).scalar_subquery()
    opened = (
        select(chats).where(chats.c.user == users.c.number).order_by(chats.c.number).correlate(users)
    ).subquery("opened")
    chat = json_array(
        opened.c.number, opened.c.peer, opened.c.peer_name, opened.c.confirmed, opened.c.written
    )
    ahead = select(gathered(acknowledged.c.seq)).where(acknowledged.c.mailbox == users.c.number)
    user = json_array(
        *(users.c.number, users.c.user_id, users.c.display_name, users.c.acknowledges, users.c.epoch),
        *(users.c.acknowledged_through, users.c.purged_through, func.coalesce(head, number(0))),
        func.coalesce(lamport, number(0)),
        nested(select(gathered(chat)).correlate(users)),
        nested(ahead.correlate(users)),
    )
    return text_of(select(gathered(user)).where(users.c.user_id.in_(select(given.c.value))), "rows")


#: User ids; gives, of those that there are: [number, user_id, display_name, acknowledges, epoch, acknowledged_through,
#: purged_through, newest seq or 0, its Lamport count or 0, chats as [number, peer, peer_name, confirmed, written], positions
#: acknowledged beyond].
LOAD: Final = _load()
#: The highest number of a user, and of a chat.
HIGHEST_USER: Final = text_of(select(func.max(users.c.number)))
HIGHEST_CHAT: Final = text_of(select(func.max(chats.c.number)))

# -- The file --

_HEAD: Final = '''\
"""The SQL of the store: written by ``python -m workers.store.queries``, which says what each statement is for. Not to be edited."""

from __future__ import annotations

from typing import Final
'''


def source() -> str:
    """Return the text of ``workers/store/statements.py``: the statements by their names, and the numbers in them that others go by."""
    constants = {"SMALL_CHAT": SMALL_CHAT, "BITE_ROWS": retention_queries.BITE_ROWS} | {
        name: value
        for name, value in (*globals().items(), *vars(retention_queries).items())
        if name.isupper() and name[0] != "_" and isinstance(value, str | tuple)
    }
    return _HEAD + "".join(f"\n{name}: Final = {_literal(value)}\n" for name, value in constants.items())


def _literal(value: object) -> str:
    if isinstance(value, str):
        lines = [line.strip() for line in value.splitlines()]
        return '"""\\\n' + "\n".join(lines) + '"""'
    if isinstance(value, tuple):
        return "(\n" + "".join(f"    {_literal(each)},\n" for each in value) + ")"
    return repr(value)


if __name__ == "__main__":
    Path(__file__).with_name("statements.py").write_text(source())
