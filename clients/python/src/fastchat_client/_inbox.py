"""Messages that come: each is shown once, and the cursor follows what was shown.

`take` finds that a message is news, and from then on it is *pending*: the listeners have it. `shown` says that they have returned: now it
may be acknowledged, and the cursor goes on. A repeat of a pending message is dropped; a repeat of one that was shown is dropped and
acknowledged again, since the server would not send it if it had the acknowledgement.

A message with which a listener failed is not acknowledged, so the server sends it again; and the cursor stays before it, since a client
that resumes gets only what follows. After a few times it counts as shown: it would hold the cursor for ever.
"""

from __future__ import annotations

from typing import Final

from fastchat_client import _wire
from fastchat_client._wire import canonical
from fastchat_client.models import Message

#: Messages that are remembered by sender and id. Only what a server repeats out of its order needs this, and that is recent.
REMEMBERED: Final = 10_000
#: How often a message is shown with which listeners fail.
SHOWN_MAX: Final = 5

_Key = tuple[str, str, str]


class Inbox:
    """What has come to one user. `cursor` is where to go on, None when the server has named no place yet."""

    def __init__(self, user_id: str, cursor: str | None) -> None:
        #: Once the server has said HELLO_ACK, as it writes it.
        self.user_id = user_id
        self.cursor = cursor
        #: Positions: of the newest message that came, and of the cursor; 0 before the first.
        self._received = 0
        self._position = 0
        #: Counts the mailboxes that the server has had: positions of one mean nothing in the next.
        self._mailbox = 0
        #: Messages that the listeners have -> the mailbox that they came from.
        self._pending: dict[_Key, int] = {}
        self._shown: dict[_Key, None] = {}
        #: Messages with which a listener failed -> how often; and those of them that the cursor does not pass, since they come again.
        self._failed: dict[_Key, int] = {}
        self._holding: set[_Key] = set()

    def greeted(self, user_id: str, cursor: str | None, resumed: str | None) -> None:
        """Take HELLO_ACK: everything after `cursor` follows."""
        self.user_id = user_id
        if resumed == "reset":
            self._mailbox += 1
            self._received = self._position = 0
        if resumed != "full":
            self._holding.clear()  # the server says where it goes on
        if cursor is not None and (resumed != "full" or self.cursor is None):
            self.cursor = cursor

    def take(self, data: _wire.Data) -> tuple[Message, bool, bool]:
        """Take a MSG: the message, whether it is news, and whether to acknowledge it at once, because it was shown before."""
        message = self.message(data)
        key, seq = _key(message), message.seq
        known = key in self._pending or key in self._shown
        if not known and (seq is None or seq > self._received or key in self._failed):
            self._pending[key] = self._mailbox
            self._received = max(self._received, seq or 0)
            return message, True, False
        if key in self._pending:
            return message, False, False
        if not self._pending:
            self._advance(message)
        return message, False, not message.own

    def message(self, data: _wire.Data) -> Message:
        """Make a message from the wire what the users of the client get."""
        return Message(
            sender=_wire.text(data, "from"),
            to=_wire.text(data, "to"),
            content=_wire.text(data, "content"),
            message_id=_wire.text(data, "message_id"),
            timestamp=_wire.text(data, "timestamp"),
            seq=_wire.number_or_none(data, "seq"),
            own=data["from"] == self.user_id,
            read=data.get("read") is True,
            cursor=_wire.text_or_none(data, "cursor"),
        )

    def shown(self, message: Message, is_well: bool = True) -> bool:
        """Note that the listeners have returned, or one has failed; whether to acknowledge it."""
        key = _key(message)
        mailbox = self._pending.pop(key)
        times = self._failed.pop(key, 0) + 1
        self._holding.discard(key)
        if (
            not is_well and times < SHOWN_MAX and not message.own
        ):  # nobody repeats what an own device has sent
            self._fail(key, times, mailbox)
            return False
        self.remember(*key)
        if mailbox == self._mailbox:
            self._advance(message)
        return not message.own

    def remember(self, sender: str, to: str, message_id: str) -> None:
        """Remember a message that is not to be shown (again)."""
        self._shown[canonical(sender), canonical(to), message_id] = None
        if len(self._shown) > REMEMBERED:
            del self._shown[next(iter(self._shown))]

    def _fail(self, key: _Key, times: int, mailbox: int) -> None:
        self._failed[key] = times
        if mailbox == self._mailbox:
            self._holding.add(key)
        if len(self._failed) > REMEMBERED:
            oldest = next(iter(self._failed))
            del self._failed[oldest]
            self._holding.discard(oldest)

    def _advance(self, message: Message) -> None:
        """Move the cursor on, never back."""
        if self._holding or message.seq is None or message.cursor is None:
            return
        if message.seq > self._position:
            self._position, self.cursor = message.seq, message.cursor


def _key(message: Message) -> _Key:
    return canonical(message.sender), canonical(message.to), message.message_id
