"""The statements that read what users ask for; see ``workers.store.queries``, which writes them out with its own."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    LargeBinary,
    Select,
    Subquery,
    bindparam,
    cast,
    func,
    select,
)

from core.wire.protocol import REPLAY_WINDOW_BYTES
from workers.store.json_sql import field_of, gathered, given_rows, json_array, nested, number, text_of
from workers.store.schema import NO_CHAT, acknowledged, blocks, chats, hook_calls, messages, users

#: Rows of messages that one `READ` gives at most for each mailbox.
READ_MAX: Final = 256
#: Messages of which one `SENDERS` gives the senders: some milliseconds.
SENDERS_MAX: Final = 4096
#: Messages that one `COVERED` gives at most.
COVERED_MAX: Final = 512
#: Messages up to which a chat is small: going through all of it is quicker than going through the mailbox.
SMALL_CHAT: Final = 1000
#: Later than every time of day that a message may have, in milliseconds since 1970 (``core.wire.timestamps``: up to the year 9999).
_AFTER_ALL_TIMES: Final = 10**15
#: What a message takes in its frame beyond its content, about.
_FRAME_OVERHEAD: Final = 210

#: Its place among those of the other direction. Rows from before there were counts come before all others, by their times.
_LAMPORT: Final = func.coalesce(messages.c.lamport, messages.c.sent_at - number(_AFTER_ALL_TIMES)).label(
    "lamport"
)
#: What a read gives of each message: [seq, chat, message_id, content, sent_at, receipts, mailbox, lamport].
_MESSAGE: Final = (
    *(messages.c.seq, messages.c.chat, messages.c.message_id, messages.c.content),
    *(messages.c.sent_at, messages.c.receipts, messages.c.mailbox, _LAMPORT),
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


#: Rows of [user, peer or null for all, id_hash]; gives the messages in the user's mailbox, and those withheld from it, like `FIND`.
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


def _messages_at() -> str:
    given = given_rows()
    there = (messages.c.mailbox == bindparam("mailbox")) & messages.c.seq.in_(select(given.c.value))
    return text_of(select(gathered(json_array(*_MESSAGE))).where(there), "mailbox", "rows")


#: (mailbox, positions); gives the messages that are at these positions.
MESSAGES_AT: Final = _messages_at()


def _lasts() -> str:
    given = given_rows()
    theirs = (chats.c.user == users.c.number) & (chats.c.peer == bindparam("sender"))
    # The index of chats has the number too, so that of all others nothing but their places in it is looked at.
    newest = select(func.max(messages.c.number)).where(messages.c.chat == chats.c.number).correlate(chats)
    found = select(gathered(json_array(users.c.user_id, *_MESSAGE))).select_from(
        given.join(users, users.c.user_id == given.c.value)
        .join(chats, theirs)
        .join(messages, messages.c.number == newest.scalar_subquery())
    )
    return text_of(found, "rows", "sender")


#: (user ids, sender); gives the newest message from the sender to each of them, behind the user's id.
LASTS: Final = _lasts()


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


def _of_chat(small: bool) -> tuple[ColumnElement[bool], ...]:
    """Return what messages of one chat are found by: in a small one all are looked at, for a large one a part of the mailbox."""
    # The sums keep SQLite from the other index.
    mailbox = messages.c.mailbox + number(0) if small else messages.c.mailbox
    chat = messages.c.chat if small else messages.c.chat + number(0)
    return mailbox == bindparam("mailbox"), chat == bindparam("chat")


def _history(small: bool) -> str:
    rows = (
        select(*_MESSAGE)
        .where(*_of_chat(small), messages.c.seq < bindparam("before"))
        .order_by(messages.c.seq.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(number(0))
        .subquery("rows")
    )
    return text_of(select(gathered(_fields(rows))), "mailbox", "chat", "before", "limit")


#: (mailbox, chat, before, limit); gives the messages of a chat, newest first.
HISTORY_OF_SMALL: Final = _history(small=True)
HISTORY: Final = _history(small=False)


def _between() -> ColumnElement[bool]:
    return (messages.c.seq > bindparam("after")) & (messages.c.seq <= bindparam("through"))


def _covered(small: bool) -> str:
    rows = (
        select(messages.c.seq, messages.c.message_id, messages.c.receipts)
        .where(*_of_chat(small), _between())
        .order_by(messages.c.seq)
        .limit(number(COVERED_MAX))
        .offset(number(0))
        .subquery("rows")
    )
    return text_of(select(gathered(json_array(*rows.c))), "mailbox", "chat", "after", "through")


def _count(small: bool) -> str:
    found = select(func.count()).select_from(messages).where(*_of_chat(small), _between())
    return text_of(found, "mailbox", "chat", "after", "through")


#: (mailbox, chat, after, through); gives [seq, message_id, receipts] of the first messages of a chat behind one position and up to another.
COVERED_OF_SMALL: Final = _covered(small=True)
COVERED: Final = _covered(small=False)
#: The same; gives how many there are.
COUNT_OF_SMALL: Final = _count(small=True)
COUNT: Final = _count(small=False)


def _newest_counts() -> ColumnElement[Any]:
    """Return the highest Lamport count of a user's messages: of the newest, or of the newest that is withheld."""
    newest = select(messages.c.lamport).where(messages.c.mailbox == users.c.number)
    lamport = newest.order_by(messages.c.seq.desc()).limit(number(1)).offset(number(0)).scalar_subquery()
    withheld = select(func.max(messages.c.seq)).where(messages.c.mailbox == -users.c.number).scalar_subquery()
    return func.max(func.coalesce(lamport, number(0)), func.coalesce(withheld, number(0)))


def _came() -> Select[Any]:
    """Select [chat, newest, active_at, unread] of a user's messages that the rows of the chats do not count."""
    behind = (messages.c.mailbox == users.c.number) & (messages.c.seq > users.c.summed_through)
    counted = (chats.c.number == messages.c.chat) & (chats.c.summed_through < messages.c.seq)
    sums = (
        select(
            chats.c.number,
            func.max(messages.c.seq).label("newest"),
            func.max(messages.c.sent_at).label("active_at"),
            func.sum(cast(messages.c.seq > chats.c.read_through, Integer)).label("unread"),
        )
        .join_from(messages, chats, counted)
        .where(behind)
        .group_by(chats.c.number)
        .correlate(users)
        .subquery("sums")
    )
    return select(gathered(json_array(*sums.c)))


def _load() -> str:
    given = given_rows()
    head = select(func.max(messages.c.seq)).where(messages.c.mailbox == users.c.number).scalar_subquery()
    fields = (
        *(chats.c.number, chats.c.peer, chats.c.peer_name, chats.c.confirmed, chats.c.written),
        *(chats.c.active_at, chats.c.newest, chats.c.read_through, chats.c.unread),
        *(chats.c.hidden, chats.c.muted),
    )
    opened = (
        select(*fields).where(chats.c.user == users.c.number).order_by(chats.c.number).correlate(users)
    ).subquery("opened")
    ahead = select(gathered(acknowledged.c.seq)).where(acknowledged.c.mailbox == users.c.number)
    block = json_array(*tuple(blocks.c)[1:])
    stood = select(gathered(block)).where(blocks.c.user == users.c.number)
    calls = select(gathered(json_array(*tuple(hook_calls.c)[1:]))).where(hook_calls.c.user == users.c.number)
    user = json_array(
        *(users.c.number, users.c.user_id, users.c.display_name, users.c.acknowledges, users.c.epoch),
        *(users.c.acknowledged_through, users.c.purged_through, users.c.summed_through),
        *(func.coalesce(head, number(0)), _newest_counts()),
        nested(select(gathered(json_array(*opened.c))).correlate(users)),
        nested(_came().correlate(users)),
        nested(ahead.correlate(users)),
        nested(stood.correlate(users)),
        *(users.c.kept, users.c.banned),
        nested(calls.correlate(users)),
    )
    return text_of(select(gathered(user)).where(users.c.user_id.in_(select(given.c.value))), "rows")


#: User ids; gives, of those that there are: [number, user_id, display_name, acknowledges, epoch, acknowledged_through,
#: purged_through, summed_through, newest seq or 0, highest Lamport count or 0, chats as [number, peer, peer_name, confirmed, written,
#: active_at, newest, read_through, unread, hidden, muted], [chat, newest, active_at, unread] of messages that these do not count, positions
#: acknowledged beyond, blocks as [peer, by_user, by_peer, read_through, withheld], kept, banned, calls of the hook as [peer, since, due]].
LOAD: Final = _load()
#: The highest number of a user, and of a chat.
HIGHEST_USER: Final = text_of(select(func.max(users.c.number)))
HIGHEST_CHAT: Final = text_of(select(func.max(chats.c.number)))
