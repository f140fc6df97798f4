"""Rows <-> the core's objects. On the way in a row is a piece of JSON, spliced together from what there is; on the way out it is a list."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from core.chat.chat import Block, Chat, HookCall
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
            *(int(user.kept), int(user.banned)),
        ]
    )


def chat_row(user: User, chat: Chat) -> bytes:
    """Return a chat for ``statements.SAVE_CHATS``, which counts all messages that are committed at this moment."""
    written = chat.written or chat.noting
    active_at = parse_timestamp(chat.last_at) if chat.last_at else 0
    return codec.to_json(
        [
            *(chat.key, user.key, chat.peer, chat.peer_name, int(chat.confirmed), int(written)),
            *(active_at, chat.newest, chat.read_through, chat.unread, user.mailbox.head),
            *(int(chat.hidden), int(chat.muted)),
        ]
    )


def block_row(user: User, peer: str) -> Row:
    """Return what stands between a user and a peer for ``workers.store.upserts.save_blocks``."""
    block = user.blocks.get(peer) if user.blocks is not None else None
    if block is None:
        return [user.key, peer]
    return [user.key, peer, int(block.by_user), int(block.by_peer), block.read_through, block.withheld]


def hook_call_row(user: User, peer: str) -> Row:
    """Return what the hook is to be told of a chat for ``workers.store.upserts.save_hook_calls``."""
    call = user.hook_calls.get(peer) if user.hook_calls is not None else None
    return [user.key, peer] if call is None else [user.key, peer, *call]


def frame_of(row: Row, sender: str, recipient: str) -> bytes:
    """Return the MSG frame of [seq, chat, message_id, content, sent_at, receipts, mailbox, lamport], byte for byte as it was when it
    came.
    """
    return codec.msg(sender, recipient, codec.to_json(row[3]), row[2], format_timestamp(row[4]))


def lamport_of(row: Row) -> int:
    """Return the Lamport count of the message of such a row."""
    lamport: int = row[7]
    return lamport


def message_of(row: Row, user: User, chat: Chat) -> Message:
    """Return the message of such a row, which is in the mailbox of `user` or withheld from it."""
    seq, _, message_id, _, _, receipts, mailbox, lamport = row
    message = Message(user, chat, message_id, frame_of(row, chat.peer, user.user_id), bool(receipts), lamport)
    message.withheld = mailbox < 0
    if not message.withheld:
        message.seq = seq
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
        summed,
        newest,
        lamport,
        chats,
        came,
        ahead,
        blocks,
        kept,
        banned,
        hook_calls,
    ) = row
    user = User(user_id, display_name, settings, epoch)
    user.key, user.saved, user.durable, user.summed_through = number, True, True, summed
    user.acknowledges, user.kept, user.banned = bool(acknowledges), bool(kept), bool(banned)
    sums = {key: sum_ for key, *sum_ in came}
    for key, peer, *fields in chats:
        user.chats[peer] = _chat_of(key, peer, fields, sums.get(key))
    for peer, by_user, by_peer, *counts in blocks:
        user.blocks = user.blocks or {}
        user.blocks[peer] = Block(bool(by_user), bool(by_peer), *counts)
    user.hook_calls = {peer: HookCall(*times) for peer, *times in hook_calls} or None
    user.mailbox.restore(max(newest, purged), lamport, purged, acknowledged, ahead)
    return user


def _chat_of(key: int, peer: str, fields: list[Any], came: list[int] | None) -> Chat:
    """Return the chat of a row, with `came`: [newest, active_at, unread] of the messages that the row does not count.

    These show a hidden chat again.
    """
    peer_name, confirmed, written, active_at, newest, read_through, unread, hidden, muted = fields
    chat = Chat(peer, peer_name)
    chat.key, chat.saved, chat.confirmed, chat.written = key, True, bool(confirmed), bool(written)
    chat.hidden, chat.muted, chat.read_through = bool(hidden), bool(muted), read_through
    if came is not None:
        newest, active_at, unread = came[0], max(active_at, came[1]), unread + came[2]
        chat.hidden = False
    chat.newest, chat.unread = newest, unread
    chat.active_at = format_timestamp(active_at) if active_at else b""
    return chat
