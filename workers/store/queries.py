"""Where the SQL of the store comes from: made from the tables in ``workers.store.schema`` and written to ``workers.store.statements``.

A worker reads what was written, since SQLAlchemy takes as long to import as all the rest of a worker, and 15 MiB. After a change of a
statement: ``python -m workers.store.queries``. A test compares the two.

Every statement takes any number of rows as *one* JSON parameter and gives its result as *one* JSON value. That is what keeps the store
out of the event loop's way: the driver releases Python's lock while SQLite works, and takes it back once a row; beside a busy loop
each time costs milliseconds. `_given` and `_gathered` are the only places that know how a database takes JSON apart and puts it
together; with PostgreSQL these would be json_array_elements and json_agg.

Text from users travels in parameters only, and a parameter is never part of the SQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BinaryExpression,
    Boolean,
    ColumnElement,
    Delete,
    Insert,
    Integer,
    LargeBinary,
    Select,
    Subquery,
    TableValuedAlias,
    Text,
    Update,
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
from workers.store.schema import NO_CHAT, acknowledged, chats, clock, marks, messages, users

#: Rows of messages that one `READ` gives at most for each mailbox.
READ_MAX: Final = 256
#: Messages of which one `SENDERS` gives the senders: some milliseconds.
SENDERS_MAX: Final = 4096
#: Messages up to which a chat is small: going through all of it is quicker than going through the mailbox.
SMALL_CHAT: Final = 1000
#: Rows of messages that one bite of retention takes.
BITE_ROWS: Final = 200
#: Rows of users that one look for strangers takes.
SWEEP_ROWS: Final = 1000
#: Later than every time of day that a message may have, in milliseconds since 1970 (``core.wire.timestamps``: up to the year 9999).
_AFTER_ALL_TIMES: Final = 10**15
#: What a message takes in its frame beyond its content, about.
_FRAME_OVERHEAD: Final = 210

# -- JSON, as SQLite does it --


def _given() -> TableValuedAlias:
    """The rows in the JSON parameter of a statement, which is bytes: an array of arrays, or of texts."""
    rows = cast(bindparam("rows", type_=LargeBinary), Text)
    return func.json_each(rows).table_valued("key", "value", name="given")


def _field(given: TableValuedAlias, index: int) -> ColumnElement[Any]:
    """One field of such a row."""
    return func.json_extract(given.c.value, literal_column(f"'$[{index}]'"))


def _array(*fields: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.json_array(*fields)


def _gathered(row: ColumnElement[Any]) -> ColumnElement[Any]:
    """All rows in one JSON array, in their order."""
    return func.json_group_array(row)


def _nested(rows: Select[Any]) -> ColumnElement[Any]:
    """A JSON value that stands in another."""
    return func.json(rows.scalar_subquery())


def _sql(statement: Select[Any] | Insert | Update | Delete, *parameters: str) -> str:
    """The text of a statement, with ``?`` for each of `parameters`."""
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    assert tuple(compiled.positiontup or ()) == parameters, compiled.positiontup
    return str(compiled)


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


# -- Writes --


def _append() -> str:
    given = _given()
    columns = (
        *(messages.c.mailbox, messages.c.seq, messages.c.chat, messages.c.id_hash, messages.c.message_id),
        *(messages.c.content, messages.c.sent_at, messages.c.receipts, messages.c.lamport, messages.c.read),
    )
    fields = [*(_field(given, index) for index in range(len(columns) - 1)), _number(0)]
    return _sql(messages.insert().from_select(list(columns), select(*fields)), "rows")


#: Rows of [mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport].
APPEND: Final = _append()


def _upsert(table: Any, columns: tuple[Any, ...], changing: tuple[Any, ...]) -> str:
    given = _given()
    fields = [_field(given, index) for index in range(len(columns))]
    # The WHERE keeps SQLite from reading ON as that of a join.
    rows = select(*fields).where(literal_column("1", Boolean))
    insert = sqlite.insert(table).from_select(list(columns), rows)
    upsert = insert.on_conflict_do_update(
        index_elements=[table.c.number],
        set_={column.name: insert.excluded[column.name] for column in changing},
    )
    return _sql(upsert, "rows")


#: Rows of [number, user_id, slot, display_name, acknowledges, epoch, acknowledged_through, purged_through, seen_at,
#: left_at].
SAVE_USERS: Final = _upsert(
    users, tuple(users.c), (users.c.display_name, users.c.acknowledges, users.c.seen_at, users.c.left_at)
)
#: Rows of [number, user, peer, peer_name, confirmed, written].
SAVE_CHATS: Final = _upsert(chats, tuple(chats.c), (chats.c.peer_name, chats.c.confirmed, chats.c.written))


def _confirm_chats() -> str:
    given = _given()
    return _sql(
        update(chats).values(confirmed=_number(1)).where(chats.c.number.in_(select(given.c.value))), "rows"
    )


#: Numbers of chats.
CONFIRM_CHATS: Final = _confirm_chats()


def _save_acknowledged() -> str:
    given = _given()
    statement = (
        update(users)
        .values(acknowledged_through=_field(given, 1))
        .where(users.c.number == _field(given, 0), users.c.acknowledged_through < _field(given, 1))
    )
    return _sql(statement, "rows")


def _forget_acknowledged() -> str:
    given = _given()
    passed = select(acknowledged.c.mailbox, acknowledged.c.seq).join_from(
        given,
        acknowledged,
        (acknowledged.c.mailbox == _field(given, 0)) & (acknowledged.c.seq <= _field(given, 1)),
    )
    statement = delete(acknowledged).where(tuple_(acknowledged.c.mailbox, acknowledged.c.seq).in_(passed))
    return _sql(statement, "rows")


def _save_ahead() -> str:
    given = _given()
    rows = select(_field(given, 0), _field(given, 1)).where(literal_column("1", Boolean))
    insert = sqlite.insert(acknowledged).from_select([acknowledged.c.mailbox, acknowledged.c.seq], rows)
    return _sql(insert.on_conflict_do_nothing(), "rows")


#: Rows of [mailbox, acknowledged_through], both.
SAVE_ACKNOWLEDGED: Final = _save_acknowledged()
FORGET_ACKNOWLEDGED: Final = _forget_acknowledged()
#: Rows of [mailbox, seq].
SAVE_AHEAD: Final = _save_ahead()


def _save_read() -> str:
    given = _given()
    statement = (
        update(messages)
        .values(read=_number(1))
        .where(messages.c.mailbox == _field(given, 0), messages.c.seq == _field(given, 1))
    )
    return _sql(statement, "rows")


#: Rows of [mailbox, seq].
SAVE_READ: Final = _save_read()


def _of_forgotten(column: ColumnElement[Any]) -> ColumnElement[bool]:
    given = _given()
    numbers = select(users.c.number).where(users.c.user_id.in_(select(given.c.value)))
    return column.in_(numbers)


#: User ids, all. A user's chats go with the user.
FORGET: Final = (
    _sql(delete(messages).where(_of_forgotten(messages.c.mailbox)), "rows"),
    _sql(delete(acknowledged).where(_of_forgotten(acknowledged.c.mailbox)), "rows"),
    _sql(delete(users).where(_of_forgotten(users.c.number)), "rows"),
)


def _drop_beyond() -> str:
    given = _given()
    beyond = select(messages.c.number).join_from(
        given, messages, (messages.c.mailbox == _field(given, 0)) & (messages.c.seq > _field(given, 1))
    )
    return _sql(delete(messages).where(messages.c.number.in_(beyond)), "rows")


#: Rows of [mailbox, head]: removes what is beyond the head.
DROP_BEYOND: Final = _drop_beyond()
#: Writes something without changing anything, to see whether that can be done.
PROBE: Final = "PRAGMA user_version = 0"

# -- Reads --

#: What a read gives of each message: [seq, chat, message_id, content, sent_at, receipts, read].
_MESSAGE: Final = (
    *(messages.c.seq, messages.c.chat, messages.c.message_id, messages.c.content),
    *(messages.c.sent_at, messages.c.receipts, messages.c.read),
)


def _fields(rows: Subquery) -> ColumnElement[Any]:
    return _array(*(rows.c[column.name] for column in _MESSAGE))


def _find() -> str:
    given = _given()
    found = _gathered(_array(given.c.key, *_MESSAGE))
    joined = (messages.c.chat == _field(given, 0)) & (messages.c.id_hash == _field(given, 1))
    return _sql(select(found).join_from(given, messages, joined), "rows")


#: Rows of [chat, id_hash]; gives the messages, each with the index of its row before its fields.
FIND: Final = _find()


def _find_in_mailbox() -> str:
    given = _given()
    found = _gathered(_array(given.c.key, *_MESSAGE))
    peer = _field(given, 1)
    of_user = (chats.c.user == _field(given, 0)) & (peer.is_(None) | (chats.c.peer == peer))
    with_id = (messages.c.chat == chats.c.number) & (messages.c.id_hash == _field(given, 2))
    joined = given.join(chats, of_user).join(messages, with_id)
    return _sql(select(found).select_from(joined), "rows")


#: Rows of [user, peer or null for all, id_hash]; gives the messages in the user's mailbox like `FIND`.
FIND_IN_MAILBOX: Final = _find_in_mailbox()


def _read() -> str:
    given = _given()
    rows = (
        select(*_MESSAGE)
        .where(
            messages.c.mailbox == _field(given, 0),
            messages.c.seq > _field(given, 1),
            messages.c.chat != _number(NO_CHAT),
        )
        .order_by(messages.c.seq)
        .limit(_number(READ_MAX))
        .offset(_number(0))
        .correlate(given)
        .subquery("rows")
    )
    size = func.length(cast(rows.c.content, LargeBinary)) + _number(_FRAME_OVERHEAD)
    # The bytes of all messages before this one.
    before = func.sum(size).over(order_by=rows.c.seq) - size
    sized = select(rows, before.label("before")).order_by(rows.c.seq).subquery("sized")
    window = select(_gathered(_fields(sized))).where(sized.c.before < _number(REPLAY_WINDOW_BYTES))
    return _sql(select(_gathered(_nested(window.correlate(given)))).select_from(given), "rows")


#: Rows of [mailbox, after]; gives a list of messages for each.
READ: Final = _read()


def _senders() -> str:
    rows = (
        select(messages.c.seq, messages.c.chat)
        .where(
            messages.c.mailbox == bindparam("mailbox"),
            messages.c.seq > bindparam("after"),
            messages.c.chat != _number(NO_CHAT),
        )
        .order_by(messages.c.seq)
        .limit(_number(SENDERS_MAX))
        .offset(_number(0))
        .subquery("rows")
    )
    return _sql(select(_gathered(_array(rows.c.seq, rows.c.chat))), "mailbox", "after")


#: (mailbox, after); gives [seq, chat] of the messages behind that position, in order.
SENDERS: Final = _senders()


def _conversation() -> str:
    some = (
        select(messages.c.number)
        .where(messages.c.chat == chats.c.number)
        .limit(_number(SMALL_CHAT + 1))
        .offset(_number(0))
        .correlate(chats)
        .subquery("some")
    )
    count = select(func.count()).select_from(some).scalar_subquery()
    found = select(_array(users.c.number, chats.c.number, count)).join_from(users, chats)
    return _sql(
        found.where(users.c.user_id == bindparam("user_id"), chats.c.peer == bindparam("peer")),
        *("user_id", "peer"),
    )


#: (user_id, peer); gives the numbers of the mailbox and of the chat, and how many messages the chat has, at most SMALL_CHAT + 1.
CONVERSATION: Final = _conversation()


def _history(*conditions: ColumnElement[bool]) -> str:
    # Rows from before there were counts come before all others, by their times.
    lamport = func.coalesce(messages.c.lamport, messages.c.sent_at - _number(_AFTER_ALL_TIMES))
    rows = (
        select(*_MESSAGE, lamport.label("lamport"))
        .where(*conditions, messages.c.seq < bindparam("before"))
        .order_by(messages.c.seq.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(_number(0))
        .subquery("rows")
    )
    return _sql(
        select(_gathered(_array(*rows.c))),
        *(str(condition.right.key) for condition in conditions if isinstance(condition, BinaryExpression)),
        *("before", "limit"),
    )


#: (chat, before, limit); gives the messages of a small chat, each with its Lamport count behind its fields, newest first: all are
#: looked at.
HISTORY_OF_SMALL: Final = _history(messages.c.chat == bindparam("chat"))
#: (mailbox, chat, before, limit); the same, going back through the mailbox. The sum keeps SQLite from the index of chats.
HISTORY: Final = _history(
    messages.c.mailbox == bindparam("mailbox"), messages.c.chat + _number(0) == bindparam("chat")
)


def _load() -> str:
    given = _given()
    head = select(func.max(messages.c.seq)).where(messages.c.mailbox == users.c.number).scalar_subquery()
    newest = select(messages.c.lamport).where(messages.c.mailbox == users.c.number)
    lamport = newest.order_by(messages.c.seq.desc()).limit(_number(1)).offset(_number(0)).scalar_subquery()
    opened = (
        select(chats).where(chats.c.user == users.c.number).order_by(chats.c.number).correlate(users)
    ).subquery("opened")
    chat = _array(opened.c.number, opened.c.peer, opened.c.peer_name, opened.c.confirmed, opened.c.written)
    ahead = select(_gathered(acknowledged.c.seq)).where(acknowledged.c.mailbox == users.c.number)
    user = _array(
        *(users.c.number, users.c.user_id, users.c.display_name, users.c.acknowledges, users.c.epoch),
        *(users.c.acknowledged_through, users.c.purged_through, func.coalesce(head, _number(0))),
        func.coalesce(lamport, _number(0)),
        _nested(select(_gathered(chat)).correlate(users)),
        _nested(ahead.correlate(users)),
    )
    return _sql(select(_gathered(user)).where(users.c.user_id.in_(select(given.c.value))), "rows")


#: User ids; gives, of those that there are: [number, user_id, display_name, acknowledges, epoch, acknowledged_through,
#: purged_through, newest seq or 0, its Lamport count or 0, chats as [number, peer, peer_name, confirmed, written], positions
#: acknowledged beyond].
LOAD: Final = _load()
#: The highest number of a user, and of a chat.
HIGHEST_USER: Final = _sql(select(func.max(users.c.number)))
HIGHEST_CHAT: Final = _sql(select(func.max(chats.c.number)))

# -- Retention --


#: The state of the retention clock: [passed, ran, owed, wall]; and the same to be kept.
LOAD_CLOCK: Final = _sql(select(_array(clock.c.passed, clock.c.ran, clock.c.owed, clock.c.wall)))
SAVE_CLOCK: Final = _sql(
    update(clock).values(
        {
            name: bindparam(f"new_{name}", type_=Integer)
            for name in (column.name for column in clock.c if column.name != "number")
        }
    ),
    *("new_passed", "new_ran", "new_owed", "new_wall"),
)


def _mark() -> str:
    last = select(func.max(messages.c.number).label("number")).subquery("last")
    passed = bindparam("passed", type_=Integer)
    # Not before those before it, also when something was owed that turned out not to be.
    latest = select(func.coalesce(func.max(marks.c.passed), _number(-(2**62)))).scalar_subquery()
    marked = select(func.coalesce(func.max(marks.c.number), _number(0))).scalar_subquery()
    row = select(last.c.number, func.max(passed, latest), bindparam("ran", type_=Integer))
    columns = [marks.c.number, marks.c.passed, marks.c.ran]
    return _sql(marks.insert().from_select(columns, row.where(last.c.number > marked)), "passed", "ran")


#: (passed, ran): remembers by when the messages that are there were stored, unless that is known of all of them.
MARK: Final = _mark()


def _past() -> str:
    numbers = (
        select(func.coalesce(func.max(marks.c.number), _number(0)))
        .where(column <= bindparam(column.name, type_=Integer))
        .scalar_subquery()
        for column in (marks.c.passed, marks.c.ran)
    )
    return _sql(select(_array(*numbers)), "passed", "ran")


#: (passed, ran); gives the highest number of a message that was stored by the one, and of one that was stored by the other; or 0.
PAST: Final = _past()


def _bite() -> str:
    oldest = (
        select(messages.c.number)
        .where(messages.c.number > bindparam("after", type_=Integer))
        .where(messages.c.number <= bindparam("past", type_=Integer))
        .order_by(messages.c.number)
        .limit(_number(BITE_ROWS))
        .offset(_number(0))
        .subquery("oldest")
    )
    return _sql(select(_array(func.count(), func.max(oldest.c.number))), "after", "past")


#: (after, past); gives [messages with numbers between the two, at most BITE_ROWS, the highest number of these].
BITE: Final = _bite()


def _bitten() -> str:
    delivered = users.c.number.is_(None) | (messages.c.seq <= users.c.acknowledged_through)
    past = (
        select(messages.c.mailbox, func.max(messages.c.seq).label("through"), users.c.user_id)
        .join_from(messages, users, users.c.number == messages.c.mailbox, isouter=True)
        .where(messages.c.number > bindparam("after", type_=Integer))
        .where(messages.c.number <= bindparam("last", type_=Integer))
        .where(delivered | (messages.c.number <= bindparam("waited", type_=Integer)))
        # The sum keeps SQLite from going through the whole index of mailboxes for a few rows.
        .group_by(messages.c.mailbox + _number(0))
        .subquery("past")
    )
    return _sql(select(_gathered(_array(*past.c))), "after", "last", "waited")


#: (after, last, waited); gives [mailbox, through, user_id or null] for everybody of whose messages between the first two numbers some go:
#: those that are acknowledged, and all up to the third number.
BITTEN: Final = _bitten()


def _raise_purged() -> str:
    given = _given()
    statement = (
        update(users).values(purged_through=_field(given, 1)).where(users.c.number == _field(given, 0))
    )
    return _sql(statement, "rows")


def _delete_through() -> str:
    given = _given()
    through = select(messages.c.number).join_from(
        given, messages, (messages.c.mailbox == _field(given, 0)) & (messages.c.seq <= _field(given, 1))
    )
    return _sql(delete(messages).where(messages.c.number.in_(through)), "rows")


#: Rows that start with [mailbox, through].
RAISE_PURGED: Final = _raise_purged()
DELETE_THROUGH: Final = _delete_through()


def _trim_marks() -> str:
    newest = select(func.coalesce(func.max(messages.c.number), _number(0))).scalar_subquery()
    oldest = select(func.min(messages.c.number)).scalar_subquery()
    return _sql(delete(marks).where((marks.c.number > newest) | (marks.c.number < oldest)))


#: Removes what is remembered of messages that are gone. To be executed with whatever deletes messages: the numbers of the newest ones are
#: given again, to others.
TRIM_MARKS: Final = _trim_marks()


def _strangers() -> str:
    some = (
        select(users.c.number, users.c.user_id, users.c.left_at)
        .where(users.c.number > bindparam("after", type_=Integer))
        .order_by(users.c.number)
        .limit(_number(SWEEP_ROWS))
        .offset(_number(0))
        .subquery("some")
    )
    has_chat = select(chats.c.number).where(chats.c.user == some.c.number).exists()
    lonely = (some.c.left_at < bindparam("until", type_=Integer)) & ~has_chat
    stranger = func.iif(lonely, some.c.user_id, literal_column("NULL"))
    return _sql(select(_array(func.max(some.c.number), _gathered(stranger))), "until", "after")


#: (until, after); gives [the last number looked at or null, user ids without chats who were not here since then, and nulls].
STRANGERS: Final = _strangers()


# -- The file --

_HEAD: Final = '''\
"""The SQL of the store: written by ``python -m workers.store.queries``, which says what each statement is for. Not to be edited."""

from __future__ import annotations

from typing import Final
'''


def source() -> str:
    """The text of ``workers/store/statements.py``: the statements by their names, and the numbers in them that others go by."""
    constants = {"SMALL_CHAT": SMALL_CHAT, "BITE_ROWS": BITE_ROWS} | {
        name: value
        for name, value in globals().items()
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
