"""The statements of retention, and of forgetting users without chats; see ``workers.store.queries``, which writes them out with its own."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Integer, and_, bindparam, delete, func, literal_column, select, update

from workers.store.json_sql import field_of, gathered, given_rows, json_array, number, text_of
from workers.store.schema import blocks, chats, clock, marks, messages, users

#: Rows of messages that one bite of retention takes.
BITE_ROWS: Final = 200
#: Rows of users that one look for strangers takes.
SWEEP_ROWS: Final = 1000

#: The state of the retention clock: [passed, ran, owed, wall]; and the same to be kept.
LOAD_CLOCK: Final = text_of(select(json_array(clock.c.passed, clock.c.ran, clock.c.owed, clock.c.wall)))
SAVE_CLOCK: Final = text_of(
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
    latest = select(func.coalesce(func.max(marks.c.passed), number(-(2**62)))).scalar_subquery()
    marked = select(func.coalesce(func.max(marks.c.number), number(0))).scalar_subquery()
    row = select(last.c.number, func.max(passed, latest), bindparam("ran", type_=Integer))
    columns = [marks.c.number, marks.c.passed, marks.c.ran]
    return text_of(marks.insert().from_select(columns, row.where(last.c.number > marked)), "passed", "ran")


#: (passed, ran): remembers by when the messages that are there were stored, unless that is known of all of them.
MARK: Final = _mark()


def _past() -> str:
    numbers = (
        select(func.coalesce(func.max(marks.c.number), number(0)))
        .where(column <= bindparam(column.name, type_=Integer))
        .scalar_subquery()
        for column in (marks.c.passed, marks.c.ran)
    )
    return text_of(select(json_array(*numbers)), "passed", "ran")


#: (passed, ran); gives the highest number of a message that was stored by the one, and of one that was stored by the other; or 0.
PAST: Final = _past()


def _bite() -> str:
    oldest = (
        select(messages.c.number)
        .where(messages.c.number > bindparam("after", type_=Integer))
        .where(messages.c.number <= bindparam("past", type_=Integer))
        .order_by(messages.c.number)
        .limit(number(BITE_ROWS))
        .offset(number(0))
        .subquery("oldest")
    )
    return text_of(select(json_array(func.count(), func.max(oldest.c.number))), "after", "past")


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
        .group_by(messages.c.mailbox + number(0))
        .subquery("past")
    )
    return text_of(select(gathered(json_array(*past.c))), "after", "last", "waited")


#: (after, last, waited); gives [mailbox, through, user_id or null] for everybody of whose messages between the first two numbers some go:
#: those that are acknowledged, and all up to the third number. What is withheld has a mailbox without a user, and goes by its age alone.
BITTEN: Final = _bitten()


def _count_out() -> str:
    given = given_rows()
    known = chats.alias("known")
    of_user = (messages.c.mailbox == field_of(given, 0)) & (messages.c.seq <= field_of(given, 1))
    through = func.max(users.c.summed_through, known.c.summed_through)
    # Only those are in the number: unread, and not among what is counted when the user is loaded.
    counted = and_(
        known.c.number == messages.c.chat, messages.c.seq > known.c.read_through, messages.c.seq <= through
    )
    gone = (
        select(known.c.number, func.count().label("count"))
        .select_from(
            given.join(messages, of_user)
            .join(users, users.c.number == messages.c.mailbox)
            .join(known, counted)
        )
        .group_by(known.c.number)
        .subquery("gone")
    )
    statement = (
        update(chats)
        .values(unread=chats.c.unread - gone.c.count)
        .where(chats.c.number == gone.c.number, chats.c.unread > number(0))
    )
    return text_of(statement, "rows")


def _raise_purged() -> str:
    given = given_rows()
    statement = (
        update(users).values(purged_through=field_of(given, 1)).where(users.c.number == field_of(given, 0))
    )
    return text_of(statement, "rows")


def _delete_through() -> str:
    given = given_rows()
    through = select(messages.c.number).join_from(
        given, messages, (messages.c.mailbox == field_of(given, 0)) & (messages.c.seq <= field_of(given, 1))
    )
    return text_of(delete(messages).where(messages.c.number.in_(through)), "rows")


#: Rows that start with [mailbox, through]; the first one comes before the messages are deleted, and takes them out of what is unread.
COUNT_OUT: Final = _count_out()
RAISE_PURGED: Final = _raise_purged()
DELETE_THROUGH: Final = _delete_through()


def _trim_marks() -> str:
    newest = select(func.coalesce(func.max(messages.c.number), number(0))).scalar_subquery()
    oldest = select(func.min(messages.c.number)).scalar_subquery()
    return text_of(delete(marks).where((marks.c.number > newest) | (marks.c.number < oldest)))


#: Removes what is remembered of messages that are gone. To be executed with whatever deletes messages: the numbers of the newest ones are
#: given again, to others.
TRIM_MARKS: Final = _trim_marks()


def _strangers() -> str:
    some = (
        select(users.c.number, users.c.user_id, users.c.left_at, users.c.kept, users.c.banned)
        .where(users.c.number > bindparam("after", type_=Integer))
        .order_by(users.c.number)
        .limit(number(SWEEP_ROWS))
        .offset(number(0))
        .subquery("some")
    )
    has_chat = select(chats.c.number).where(chats.c.user == some.c.number).exists()
    has_block = select(blocks.c.user).where(blocks.c.user == some.c.number).exists()
    lonely = (some.c.left_at < bindparam("until", type_=Integer)) & ~has_chat & ~has_block
    lonely &= ~(some.c.kept | some.c.banned)
    stranger = func.iif(lonely, some.c.user_id, literal_column("NULL"))
    return text_of(select(json_array(func.max(some.c.number), gathered(stranger))), "until", "after")


#: (until, after); gives [the last number looked at or null, user ids without chats and blocks who were not here since then, and nulls].
STRANGERS: Final = _strangers()
