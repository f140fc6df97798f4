"""Rows <-> the core's objects. On the way in a row is a piece of JSON, spliced together from what there is; on the way out it is a list."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from core.chat.chat import Chat
from core.chat.user import Message, User
from core.placement import slot_of
from core.process.settings import Settings
from core.wire import codec
from core.wire.timestamps import format_timestamp, parse_timestamp

#: One row as the database gave it.
Row = list[Any]


def id_hash(message_id: str) -> int:
    """Return 64 bits of a message id, as a signed number."""
    return int.from_bytes(blake2b(message_id.encode(), digest_size=8).digest(), "big", signed=True)


def joined(rows: list[bytes]) -> bytes:
    """Join rows that are JSON already to a JSON array."""
    return b"[%b]" % b",".join(rows)


def message_row(message: Message, hashed: int, mailbox: int, seq: int) -> bytes:
    """Return a message for ``statements.APPEND``, of which `id_hash` is `hashed`. The content is a slice of the frame, which is JSON."""
    message_id = message.message_id
    content, timestamp = codec.msg_parts(message.frame, message.sender, message.user.user_id, message_id)
    return b"[%d,%d,%d,%d,%b,%b,%d,%d,%d]" % (
        mailbox,
        seq,
        message.chat.key,
        hashed,
        codec.to_json(message_id),
        content,
        parse_timestamp(timestamp),
        message.receipts,
        message.lamport,
    )


def user_row(user: User, seen_at: int, left_at: int) -> bytes:
    """Return a user for ``statements.SAVE_USERS``; `seen_at` in milliseconds since 1970, `left_at` in those of the retention clock."""
    mailbox = user.mailbox
    return codec.to_json(
        [
            *(user.key, user.user_id, slot_of(user.user_id), user.display_name, int(user.acknowledges)),
            *(mailbox.epoch, mailbox.acknowledged_through, mailbox.purged_through, seen_at, left_at),
        ]
    )


def chat_row(user: User, chat: Chat) -> bytes:
    """Return a chat for ``statements.SAVE_CHATS``."""
    written = chat.written or chat.noting
    return codec.to_json([chat.key, user.key, chat.peer, chat.peer_name, int(chat.confirmed), int(written)])


def frame_of(row: Row, sender: str, recipient: str) -> bytes:
    """Return the MSG frame of [seq, chat, message_id, content, sent_at, receipts, read], byte for byte as it was when it came."""
    return codec.msg(sender, recipient, codec.to_json(row[3]), row[2], format_timestamp(row[4]))


def message_of(row: Row, user: User, chat: Chat) -> Message:
    """Return the message of such a row, in the mailbox of `user`."""
    message = Message(user, chat, row[2], frame_of(row, chat.peer, user.user_id))
    message.seq = row[0]
    message.receipts = bool(row[5])
    message.read = bool(row[6])
    return message


def messages_of(rows: list[Row], user: User) -> list[Message]:
    """Return the messages of several rows, in their order."""
    chats = {chat.key: chat for chat in user.chats.values()}
    return [message_of(row, user, chats[row[1]]) for row in rows if row[1] in chats]


def user_of(row: Row, settings: Settings) -> User:
    """Return the user of a row that ``statements.LOAD`` has given."""
    (
        number,
        user_id,
        display_name,
        acknowledges,
        epoch,
        acknowledged,
        purged,
        newest,
        lamport,
        chats,
        ahead,
    ) = row
    user = User(user_id, display_name, settings, epoch)
    user.key, user.saved, user.durable = number, True, True
    user.acknowledges = bool(acknowledges)
    for key, peer, peer_name, confirmed, written in chats:
        chat = user.chats[peer] = Chat(peer, peer_name)
        chat.key, chat.saved, chat.confirmed, chat.written = key, True, bool(confirmed), bool(written)
    user.mailbox.restore(max(newest, purged), lamport, purged, acknowledged, ahead)
    return user
