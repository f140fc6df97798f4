"""The statements of the hook, which are about all users; see ``workers.store.queries``, which writes them out with its own."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Integer, bindparam, func, literal_column, select

from workers.store.json_sql import gathered, json_array, number, text_of
from workers.store.schema import acknowledged, chats, hook_calls, messages, users

#: Rows of users that one look for messages of which no call knows takes.
UNTOLD_ROWS: Final = 200


def _due() -> str:
    due = (
        select(users.c.user_id, hook_calls.c.peer)
        .join(users, users.c.number == hook_calls.c.user)
        .where(hook_calls.c.due <= bindparam("before", type_=Integer))
        .order_by(hook_calls.c.due)
        .limit(bindparam("limit", type_=Integer))
        .offset(number(0))
        .subquery("due")
    )
    return text_of(select(gathered(json_array(*due.c))), "before", "limit")


#: (before, limit); gives [user_id, peer] of the calls that are due first.
HOOK_CALLS_DUE: Final = _due()

#: Gives [how many calls are pending, since when the oldest is or null].
HOOK_CALLS_PENDING: Final = text_of(
    select(json_array(func.count(), func.min(hook_calls.c.since)))
    .select_from(hook_calls)
    .where(hook_calls.c.due.is_not(None))
)


def _untold() -> str:
    some = (
        select(users.c.number, users.c.user_id, users.c.acknowledged_through)
        .where(users.c.number > bindparam("after", type_=Integer))
        .order_by(users.c.number)
        .limit(number(UNTOLD_ROWS))
        .offset(number(0))
        .subquery("some")
    )
    ahead = (
        select(acknowledged.c.seq)
        .where(acknowledged.c.mailbox == messages.c.mailbox, acknowledged.c.seq == messages.c.seq)
        .correlate(messages)
        .exists()
    )
    told = (
        select(hook_calls.c.peer)
        .where(hook_calls.c.user == some.c.number, hook_calls.c.peer == chats.c.peer)
        .correlate(some, chats)
        .exists()
    )
    waits = (
        select(messages.c.seq)
        .join(chats, chats.c.number == messages.c.chat)
        .where(
            messages.c.mailbox == some.c.number,
            messages.c.seq > some.c.acknowledged_through,
            ~chats.c.muted,
            ~ahead,
            ~told,
        )
        .correlate(some)
        .exists()
    )
    user_id = func.iif(waits, some.c.user_id, literal_column("NULL"))
    return text_of(select(json_array(func.max(some.c.number), gathered(user_id))), "after")


#: (after); gives [the last number looked at or null, user ids of whom a message waits in such a chat, and nulls].
UNTOLD: Final = _untold()
