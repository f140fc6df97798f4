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
    Boolean,
    Integer,
    Select,
    Table,
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

from workers.store import hook_queries, read_queries, retention_queries
from workers.store.json_sql import field_of, given_rows, number, text_of
from workers.store.schema import NO_CHAT, acknowledged, blocks, chats, commit_log, hook_calls, messages, users

# -- Writes --


#: The columns of a message that are given with it, in the order of a row.
_GIVEN: Final = (
    *(messages.c.mailbox, messages.c.seq, messages.c.chat, messages.c.id_hash, messages.c.message_id),
    *(messages.c.content, messages.c.sent_at, messages.c.receipts, messages.c.lamport),
)


def _append() -> str:
    given = given_rows()
    fields = [field_of(given, index) for index in range(len(_GIVEN))]
    return text_of(messages.insert().from_select([*_GIVEN], select(*fields)), "rows")


def _append_row() -> str:
    row = {column.name: bindparam(f"given_{column.name}", type_=Integer) for column in _GIVEN}
    return text_of(messages.insert().values(**row), *(f"given_{name}" for name in row))


#: Rows of [mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport].
APPEND: Final = _append()
#: The fields of one such row: half as dear as JSON, which SQLite would take apart once for each field.
APPEND_ROW: Final = _append_row()


def _upsert(
    columns: tuple[Any, ...], keys: tuple[Any, ...], changing: tuple[Any, ...], added: tuple[Any, ...] = ()
) -> str:
    """Write rows that begin with these columns. In a commit log of the version before, they are without what was `added`, which is 0."""
    given = given_rows()
    fields = [
        func.coalesce(field_of(given, index), number(0)) if column in added else field_of(given, index)
        for index, column in enumerate(columns)
    ]
    # The WHERE keeps SQLite from reading ON as that of a join.
    rows = select(*fields).where(literal_column("1", Boolean))
    insert = sqlite.insert(keys[0].table).from_select(list(columns), rows)
    upsert = insert.on_conflict_do_update(
        index_elements=keys,
        set_={column.name: insert.excluded[column.name] for column in changing},
    )
    return text_of(upsert, "rows")


#: Rows of [number, user_id, slot, display_name, acknowledges, epoch, acknowledged_through, purged_through, seen_at,
#: left_at, kept, banned]. `summed_through` is written by SAVE_SUMMED only, and `deleting` by ``workers.store.deletion``.
SAVE_USERS: Final = _upsert(
    tuple(column for column in users.c if column.name not in ("summed_through", "deleting")),
    (users.c.number,),
    (
        users.c.display_name,
        users.c.acknowledges,
        users.c.seen_at,
        users.c.left_at,
        users.c.kept,
        users.c.banned,
    ),
    added=(users.c.kept, users.c.banned),
)
#: Rows of [number, user, peer, peer_name, confirmed, written, active_at, newest, read_through, unread, summed_through, hidden, muted].
SAVE_CHATS: Final = _upsert(tuple(chats.c), (chats.c.number,), tuple(chats.c)[3:])
#: Rows of [user, peer, by_user, by_peer, read_through, withheld].
SAVE_BLOCKS: Final = _upsert(tuple(blocks.c), (blocks.c.user, blocks.c.peer), tuple(blocks.c)[2:])


#: Rows of [user, peer, since, due].
SAVE_HOOK_CALLS: Final = _upsert(
    tuple(hook_calls.c), (hook_calls.c.user, hook_calls.c.peer), tuple(hook_calls.c)[2:]
)


def _drop_pairs(table: Table) -> str:
    given = given_rows()
    pairs = select(field_of(given, 0), field_of(given, 1)).select_from(given)
    return text_of(delete(table).where(tuple_(table.c.user, table.c.peer).in_(pairs)), "rows")


#: Rows of [user, peer].
DROP_BLOCKS: Final = _drop_pairs(blocks)
DROP_HOOK_CALLS: Final = _drop_pairs(hook_calls)


def _save_summed() -> str:
    given = given_rows()
    through = field_of(given, 1)
    return text_of(
        update(users).values(summed_through=through).where(users.c.number == field_of(given, 0)), "rows"
    )


#: Rows of [user, summed_through].
SAVE_SUMMED: Final = _save_summed()


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


def _forgotten() -> Select[Any]:
    given = given_rows()
    return select(users.c.number).where(users.c.user_id.in_(select(given.c.value)))


def _delete_mailboxes(numbers: Select[Any]) -> tuple[str, ...]:
    """Delete all that users have, and then the users; their chats, blocks and calls of the hook go with them."""
    (number_,) = numbers.selected_columns
    return (
        text_of(delete(messages).where(messages.c.mailbox.in_(numbers)), "rows"),
        text_of(delete(messages).where(messages.c.mailbox.in_(numbers.with_only_columns(-number_))), "rows"),
        text_of(delete(acknowledged).where(acknowledged.c.mailbox.in_(numbers)), "rows"),
        text_of(delete(users).where(users.c.number.in_(numbers)), "rows"),
    )


#: User ids, all.
FORGET: Final = _delete_mailboxes(_forgotten())


def _drop_beyond() -> str:
    given = given_rows()
    beyond = select(messages.c.number).join_from(
        given, messages, (messages.c.mailbox == field_of(given, 0)) & (messages.c.seq > field_of(given, 1))
    )
    return text_of(delete(messages).where(messages.c.number.in_(beyond)), "rows")


#: Rows of [mailbox, head]: removes what is beyond the head.
DROP_BEYOND: Final = _drop_beyond()


def _drop_same(*fields: int) -> str:
    given = given_rows()
    same = and_(*(_GIVEN[index] == field_of(given, index) for index in fields))
    there = select(messages.c.number).join_from(given, messages, same)
    return text_of(delete(messages).where(messages.c.number.in_(there)), "rows")


#: Rows that start with [mailbox, seq], and rows as for APPEND: removes what has the same positions, and the same chats and ids.
DROP_AT: Final = _drop_same(0, 1)
DROP_PLACES: Final = _drop_same(2, 3)


def _others(table: Any, *columns: Any) -> Any:
    """Select the numbers of rows of `table` that have another number than a given row, and the same in `columns`.

    These follow the number in given rows.
    """
    given = given_rows()
    same = [column == field_of(given, index) for index, column in enumerate(columns, 1)]
    return select(table.c.number).join_from(given, table, and_(table.c.number != field_of(given, 0), *same))


#: Rows as for SAVE_USERS: removes users of the same ids and other numbers, with all that they have.
DROP_OTHER_USERS: Final = _delete_mailboxes(_others(users, users.c.user_id))
#: Rows as for SAVE_CHATS: removes chats of the same two users and other numbers, with their messages.
DROP_OTHER_CHATS: Final = (
    text_of(delete(messages).where(messages.c.chat.in_(_others(chats, chats.c.user, chats.c.peer))), "rows"),
    text_of(delete(chats).where(chats.c.number.in_(_others(chats, chats.c.user, chats.c.peer))), "rows"),
)
#: Writes something without changing anything, to see whether that can be done.
PROBE: Final = "PRAGMA user_version = 0"

# -- What the version before has left in a commit log (``workers.store.old_records``) --

#: Rows of [number, user, peer, peer_name, confirmed, written].
SAVE_OLD_CHATS: Final = _upsert(
    tuple(chats.c)[:6], (chats.c.number,), (chats.c.peer_name, chats.c.confirmed, chats.c.written)
)


def _confirm_chats() -> str:
    given = given_rows()
    return text_of(
        update(chats).values(confirmed=number(1)).where(chats.c.number.in_(select(given.c.value))), "rows"
    )


#: Numbers of chats.
CONFIRM_CHATS: Final = _confirm_chats()


def _mark_read() -> str:
    given = given_rows()
    joined = (messages.c.mailbox == field_of(given, 0)) & (messages.c.seq == field_of(given, 1))
    read = (
        select(messages.c.chat, func.max(messages.c.seq).label("through"))
        .join_from(given, messages, joined)
        .group_by(messages.c.chat)
        .subquery("read")
    )
    further = (chats.c.number == read.c.chat) & (chats.c.read_through < read.c.through)
    return text_of(update(chats).values(read_through=read.c.through).where(further), "rows")


#: Rows of [mailbox, seq]: messages that were read.
MARK_READ: Final = _mark_read()


def _count_chats() -> str:
    given = given_rows()
    known = chats.alias("known")
    unread = messages.c.seq > func.max(known.c.read_through, users.c.acknowledged_through)
    sums = (
        select(
            known.c.number,
            func.max(messages.c.seq).label("newest"),
            func.max(messages.c.sent_at).label("active_at"),
            func.sum(cast(unread, Integer)).label("unread"),
        )
        .select_from(
            given.join(users, users.c.number == given.c.value)
            .join(messages, messages.c.mailbox == users.c.number)
            .join(known, known.c.number == messages.c.chat)
        )
        .group_by(known.c.number)
        .subquery("sums")
    )
    counted = {"newest": sums.c.newest, "unread": sums.c.unread}
    latest = func.max(chats.c.active_at, sums.c.active_at)
    statement = update(chats).values(**counted, active_at=latest).where(chats.c.number == sums.c.number)
    return text_of(statement, "rows")


def _count_users() -> str:
    given = given_rows()
    head = select(func.max(messages.c.seq)).where(messages.c.mailbox == users.c.number).scalar_subquery()
    through = func.max(users.c.purged_through, func.coalesce(head, number(0)))
    statement = update(users).values(summed_through=through).where(users.c.number.in_(select(given.c.value)))
    return text_of(statement, "rows")


#: Numbers of users, both: counts all messages of their chats anew, as the migration does.
COUNT_CHATS: Final = _count_chats()
COUNT_USERS: Final = _count_users()

# -- The commit log --

#: How far it has been folded; and the same to be kept.
LOAD_FOLDED: Final = text_of(select(commit_log.c.folded))
SAVE_FOLDED: Final = text_of(
    update(commit_log).values(folded=bindparam("new_folded", type_=Integer)), "new_folded"
)
#: Changes something, so that SQLite has something to sync.
COUNT_SYNC: Final = text_of(update(commit_log).values(syncs=commit_log.c.syncs + number(1)))

# -- The file --

_HEAD: Final = '''\
"""The SQL of the store: written by ``python -m workers.store.queries``, which says what each statement is for. Not to be edited."""

from __future__ import annotations

from typing import Final
'''


def source() -> str:
    """Return the text of ``workers/store/statements.py``: the statements by their names, and the numbers in them that others go by."""
    numbers = {
        "NO_CHAT": NO_CHAT,
        "SMALL_CHAT": read_queries.SMALL_CHAT,
        "BITE_ROWS": retention_queries.BITE_ROWS,
    }
    constants = numbers | {
        name: value
        for module in (globals(), vars(read_queries), vars(hook_queries), vars(retention_queries))
        for name, value in module.items()
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
