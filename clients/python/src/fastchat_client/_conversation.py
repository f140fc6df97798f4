"""What is said and heard once HELLO_ACK has come, over however many connections it takes.

`greeted` begins and `lost` ends a stretch on one connection; whatever is under way survives from one to the next. Nothing is thrown away
without a word: it ends in an answer, in an exception for whoever waits for it, or in an `error` event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fastchat_client import _backoff, _wire
from fastchat_client._codes import (
    CHAT_NOT_OPENED,
    FORGOTTEN,
    MESSAGE_FAILED,
    RATE_LIMITED,
    VALIDATION,
)
from fastchat_client._inbox import Inbox
from fastchat_client._lists import Lists
from fastchat_client._outbox import Outbox
from fastchat_client._people import People
from fastchat_client._receipts import Accepted
from fastchat_client._repeater import Repeater
from fastchat_client._requests import (
    COMMANDS,
    HISTORY_TRIES,
    PAGES,
    Done,
    Request,
    RequestLine,
    unsupported,
)
from fastchat_client._wire import Data, canonical, encode
from fastchat_client.models import RANK, Chat, FastChatError, History, Message, Sent, Status

#: Seconds after which a request without an answer counts as not confirmed. The server answers within 5 s, so the answer is lost.
ANSWER_TIMEOUT: Final = 15.0
#: People whose presence may be asked for in one message.
ASKED_FOR: Final = 100


class Conversation:
    """Everything but the connection. `write` puts text on the wire, `emit` tells the listeners."""

    def __init__(
        self,
        user_id: str,
        cursor: str | None,
        random: _backoff.Random,
        write: Callable[[str], None],
        emit: Callable[[str, object], None],
    ) -> None:
        self._random = random
        self._write = write
        self._emit = emit
        # -- On this connection --
        self.online = False
        self.capabilities: frozenset[str] = frozenset()
        # -- For good --
        self.people = People(emit)
        #: user id of the other person, in lower case as the server writes a UUID -> the chat.
        self.chats: dict[str, Chat] = {}
        self.inbox = Inbox(user_id, cursor)
        self._outbox = Outbox(self._write_message, self._changed)
        self._accepted = Accepted()
        self._openings = RequestLine(self._write_request)
        self._histories = RequestLine(self._write_request)
        self._repeater = Repeater()
        self.lists = Lists(self._repeater, self._write_request, self._say, emit)
        #: Type of a request -> its line; and each line once.
        self._lines: dict[str | None, RequestLine] = {
            "OPEN_CHAT": self._openings,
            "HISTORY": self._histories,
            "CHATS": self.lists.pages,
            **dict.fromkeys(COMMANDS, self.lists.commands),
        }
        self._all_lines = list(dict.fromkeys(self._lines.values()))
        self._handlers: dict[str, Callable[[Data, float], None]] = {
            "PRESENCE": self._on_presence,
            "CHAT_OPENED": self._on_chat_opened,
            "MSG": self._on_message,
            "MSG_ACK": self._on_ack,
            "HISTORY": self._on_history,
            "CHATS": self.lists.on_chats,
            "TYPING": self.people.on_typing,
            "PONG": self._on_pong,
            "ERROR": self._on_error,
        }

    # -- The connection --

    def greeted(self, data: Data) -> str | None:
        """Take HELLO_ACK: what the server could resume. Raises FastChatError(PROTOCOL). After this, `begin`."""
        user_id, capabilities = _wire.text(data, "user_id"), _wire.texts(data, "capabilities")
        cursor, resumed = _wire.text_or_none(data, "cursor"), _wire.text_or_none(data, "resumed")
        self.capabilities = frozenset(capabilities)
        self.people.greeted(data)
        self.inbox.greeted(user_id, cursor, resumed)
        return resumed

    def begin(self, again: bool, now: float) -> None:
        """Say what was lost with the last connection, then what waits; and `again`, ask what has become of what is not read yet."""
        self.online = True
        reads: list[Data] = []
        for kind, said in self._repeater.start_over("chats" in self.capabilities):
            if kind == "READ" and "chats" in self.capabilities:
                reads.append(said)
            elif kind != "READ" or "receipts" in self.capabilities:
                self._say(kind, said)
        for line in self._all_lines:
            line.drop(self.capabilities)
        if "chats" in self.capabilities:
            self.lists.begin(reads, now)
        self.pump(now)
        if again and "receipts" in self.capabilities:
            for sent in self._accepted.latest(now):
                self._write_message(sent)

    def lost(self) -> None:
        """Note that the connection is gone. What was on its way goes out again on the next one."""
        self.online = False
        self._outbox.start_over()
        self._openings.start_over()
        self._histories.start_over()
        self.lists.lost()
        self._accepted.asked.clear()
        self.people.lost()

    def finish(self, now: float) -> None:
        """Say what has been put off: the connection is about to be closed."""
        if self.online:
            self.lists.reading.finish(now)

    def end(self, error: FastChatError) -> None:
        """Tell whatever waits that the client is closed for good."""
        for sent in self._outbox.take_all():
            sent.end(error)
            self._changed(sent)
        for sent in self._accepted.take_all():
            sent.end(error)
        for line in self._all_lines:
            while line.waiting:
                line.finish(None, error)

    def receive(self, kind: str, data: Data, now: float) -> None:
        """Take a message from the server. Raises FastChatError(PROTOCOL) when it lacks a field or has one of the wrong type."""
        handler = self._handlers.get(kind)
        if handler is not None:  # a later server may say what this client does not know
            handler(data, now)
            self.pump(now)

    def tick(self, now: float) -> None:
        """Do what is due: what has no answer counts as not confirmed, and what had to wait is said."""
        if not self.online:
            return
        for sent in self._outbox.overdue(ANSWER_TIMEOUT, now):
            self._refused_message(sent, _no_answer(), now)
        for line in self._all_lines:
            if line.overdue(ANSWER_TIMEOUT, now):
                self._refused_request(line, _no_answer(), now)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Say what may be said now."""
        if not self.online:
            return
        for line in self._all_lines:
            line.pump(now)
        self.lists.reading.pump(now)
        self._outbox.pump(now)

    def deadlines(self, now: float) -> Iterator[float]:
        """List the times from now on at which `tick` has something to do."""
        if self.online:
            yield from self._outbox.deadlines(ANSWER_TIMEOUT, now)
            for line in self._all_lines:
                yield from line.deadlines(ANSWER_TIMEOUT, now)
            yield from self.lists.deadlines(now)

    def pinged(self) -> None:
        """Note that a PING goes out."""
        self._repeater.pinged()

    # -- What the user of the client wants --

    def send(self, sent: Sent, now: float) -> Sent:
        """Send a message; the one whose progress shows what becomes of it, which is an earlier one if this is its repeat."""
        known = self._outbox.waiting(sent.to, sent.message_id) or self._accepted.find(
            sent.message_id, sent.to
        )
        if known is not None and sent.content in (known.original, known.content):
            return known
        try:
            encode("MSG", {"to": sent.to, "content": sent.content, "message_id": sent.message_id})
            if known is not None:
                raise FastChatError(VALIDATION, "this message_id was used for another content")
        except FastChatError as error:
            sent.end(error)
            self._changed(sent)
            return sent
        self._outbox.add(sent)
        self.people.typing.message_sent(sent.to)
        self.pump(now)
        return sent

    def open_chat(self, user_id: str, display_name: str, done: Done, now: float) -> None:
        """Open a chat, unless it is; `done` gets the Chat."""
        chat = self.chats.get(canonical(user_id))
        if chat is not None:
            done(chat, None)
        else:
            self._open(user_id, display_name, done, now)

    def _open(self, user_id: str, display_name: str, done: Done, now: float) -> None:
        for request in self._openings.waiting:
            if request.peer == canonical(user_id):
                request.done.append(done)
                return
        data = {"target_user_id": user_id, "target_display_name": display_name}
        self._request(self._openings, Request("OPEN_CHAT", user_id, data, done), now)

    def history(self, user_id: str, before: str | None, limit: int | None, done: Done, now: float) -> None:
        """Ask for what was written with a user; `done` gets a History."""
        data: Data = {"with": user_id}
        if before is not None:
            data["before"] = before
        if limit is not None:
            data["limit"] = limit
        self._request(self._histories, Request("HISTORY", user_id, data, done), now)

    def list_chats(self, before: str | None, limit: int | None, done: Done, now: float) -> None:
        """Ask for a page of the list of chats; `done` gets a ChatPage."""
        self._request(self.lists.pages, self.lists.page(before, limit, done), now)

    def command(self, kind: str, user_id: str, done: Done, now: float) -> None:
        """Say HIDE, MUTE, UNMUTE, BLOCK or UNBLOCK; `done` gets the ChatEntry that shows it."""
        self._request(self.lists.commands, Request(kind, user_id, {"user_id": user_id}, done), now)

    def typing(self, user_id: str, is_typing: bool, now: float) -> None:
        """Say that the user is typing, or has stopped; as often as the limits allow."""
        text = encode("TYPING", {"to": user_id, "is_typing": is_typing})
        if self.online and self.people.typing.wants(user_id, is_typing, now):
            self._write(text)

    def ask_presence(self, user_ids: Iterable[str]) -> None:
        """Ask who of these people is online; they are told as `presence`."""
        wanted = list(dict.fromkeys(user_ids))
        asked = [wanted[at : at + ASKED_FOR] for at in range(0, len(wanted), ASKED_FOR)]
        texts = [encode("PRESENCE", {"user_ids": some}) for some in asked]
        if self.online and "presence_delta" in self.capabilities:
            for text in texts:
                self._write(text)

    def mark_read(self, message_id: str, sender: str, now: float) -> None:
        """Say that the user has read a message; and all before it, if the server takes it so."""
        data = {"message_id": message_id, "from": sender}
        text = encode("READ", data)
        if self.online and "chats" in self.capabilities:
            self.lists.mark_read(data, now)
        elif not self.online or "receipts" in self.capabilities:
            self._repeater.add("READ", data)
            if self.online:
                self._write(text)

    def shown(self, message: Message, is_well: bool) -> None:
        """Note that the listeners of a message have returned; `is_well` if none has raised."""
        if self.inbox.shown(message, is_well):
            self._acknowledge(message)

    # -- What comes --

    def _on_presence(self, data: Data, now: float) -> None:
        changed = self.people.on_presence(data)
        self.lists.presence(self.people.presence, changed)

    def _on_chat_opened(self, data: Data, now: float) -> None:
        fields = [_wire.text(data, name) for name in ("chat_id", "target_user_id", "target_display_name")]
        chat = Chat(*fields)
        self.chats[canonical(chat.user_id)] = chat
        self._emit("chat", chat)
        current = self._openings.current
        if current is not None and current.peer == canonical(chat.user_id):
            self.lists.opened(chat.user_id)
            self._openings.finish(chat)

    def _on_message(self, data: Data, now: float) -> None:
        message, is_news, acknowledge = self.inbox.take(data)
        if message.own and not is_news:
            # Sent by this client, on a connection that is gone: so the server has it.
            self._got_further(message.message_id, "accepted", message.to, now, message.content)
        if is_news:
            self.lists.arrived(message)
            self._emit("message", message)
        elif acknowledge:
            self._acknowledge(message)

    def _on_ack(self, data: Data, now: float) -> None:
        message_id, status = _wire.text(data, "message_id"), _wire.text(data, "status")
        to, content = _wire.text_or_none(data, "to"), _wire.text_or_none(data, "content")
        match status:
            case "stored" | "accepted" | "delivered" | "read":
                self._got_further(message_id, status, to, now, content)

    def _got_further(
        self, message_id: str, status: Status, to: str | None, now: float, content: str | None
    ) -> None:
        """Note that the server has a message of this client, or more than that; with `content`, if it has not stored what was sent."""
        sent = self._outbox.find(message_id, to)
        if sent is not None:
            self._outbox.done(sent)
            given_up = self._accepted.add(sent, now)
            if given_up is not None:
                given_up.end(FastChatError(FORGOTTEN, "the receipts of newer messages are followed instead"))
        else:
            sent = self._accepted.find(message_id, to)
        if sent is None:
            return
        is_further = RANK[status] > RANK[sent.status]
        is_other = content is not None and content != sent.content
        if content is not None:
            sent.content = content
        if RANK[sent.status] < RANK["accepted"]:
            self.lists.wrote(sent, self.inbox.user_id, now)
        if is_further:
            sent.change(status)
        if is_further or is_other:
            self._changed(sent)
        if status == "read":
            self._accepted.remove(sent)

    def _on_history(self, data: Data, now: float) -> None:
        peer, following = _wire.text(data, "with"), _wire.text_or_none(data, "next")
        messages = [self.inbox.message(message) for message in _wire.objects(data, "messages")]
        current = self._histories.current
        if current is not None and current.peer == canonical(peer):
            history = History(messages, following)
            self.lists.paged(peer, current.payload.get("before"), history)
            self._histories.finish(history)

    def _on_pong(self, data: Data, now: float) -> None:
        self._repeater.ponged()
        self.lists.on_pong(data, now)

    def _on_error(self, data: Data, now: float) -> None:
        """Find the request that an ERROR belongs to: it names a message, or a type, or there is only one that it can mean."""
        error = _wire.error(data)
        kind, message_id = _wire.text_or_none(error.details, "type"), error.details.get("message_id")
        sent: Sent | None = None
        line: RequestLine | None = None
        if kind in self._lines:
            line = self._lines[kind]
            if line.current is not None and line.current.kind != kind:
                line = None
        elif kind in (None, "MSG") and isinstance(message_id, str):
            sent = self._outbox.find(message_id)
            if sent is None and message_id in self._accepted.asked:
                return  # it was only asked how far it is
        elif kind in (None, "MSG"):
            messages = self._outbox.in_flight
            lines = [line for line in self._all_lines if kind is None and line.in_flight]
            if len(messages) + len(lines) == 1:
                sent = messages[0] if messages else None
                line = lines[0] if lines else None
        if sent is not None:
            self._refused_message(sent, error, now)
        elif line is not None and line.in_flight:
            self._refused_request(line, error, now)
        elif kind == "TYPING" and error.code == RATE_LIMITED:
            self.people.typing.limited(self._retry_after(error), now)
        elif kind == "READ" and error.code == RATE_LIMITED and "chats" in self.capabilities:
            self.lists.limited(now + self._retry_after(error))
        else:
            self._emit("error", error)

    # -- Refusals --

    def _refused_message(self, sent: Sent, error: FastChatError, now: float) -> None:
        if error.code == RATE_LIMITED:
            self._outbox.limited(sent, error, now + self._retry_after(error))
        elif error.code == MESSAGE_FAILED:
            wait = _backoff.again(self._random, self._outbox.tries(sent))
            self._outbox.again(sent, error, now + wait)
        elif self._is_forgotten(canonical(sent.to), error) and not self._outbox.was_held(sent):
            self._outbox.hold(sent, error)

            def opened(chat: Chat | None, failure: FastChatError | None) -> None:
                if failure is None:
                    self._outbox.release(sent.to)
                else:
                    self._fail(sent, failure)

            self._reopen(sent.to, opened, now)
        else:
            self._fail(sent, error)

    def _fail(self, sent: Sent, error: FastChatError) -> None:
        if sent.status == "failed":
            return  # the client was closed meanwhile
        self._outbox.done(sent)
        sent.end(error)
        self._changed(sent)

    def _refused_request(self, line: RequestLine, error: FastChatError, now: float) -> None:
        request = line.waiting[0]
        if request.kind in COMMANDS:
            line.finish(None, error)
        elif error.code == RATE_LIMITED:
            line.again(now + self._retry_after(error))
        elif error.code == MESSAGE_FAILED:
            request.tries += 1
            if request.kind in PAGES and request.tries >= HISTORY_TRIES:
                line.finish(None, error)
            else:
                line.again(now + _backoff.again(self._random, request.tries - 1))
        elif self._is_forgotten(request.peer, error) and not request.opened:
            request.opened = True
            line.hold()

            def opened(chat: Chat | None, failure: FastChatError | None) -> None:
                if failure is None:
                    line.opening = False
                else:
                    line.finish(None, failure)

            self._reopen(request.peer, opened, now)
        else:
            line.finish(None, error)

    def _is_forgotten(self, peer: str, error: FastChatError) -> bool:
        """Return whether the server has forgotten a chat; to open it again would not help where the user has blocked the other one."""
        is_blocked = error.details.get("blocked") is True
        return error.code == CHAT_NOT_OPENED and peer in self.chats and not is_blocked

    def _reopen(self, user_id: str, done: Done, now: float) -> None:
        """Open again a chat that was open, and that the server has forgotten."""
        chat = self.chats[canonical(user_id)]
        self._open(chat.user_id, chat.display_name, done, now)

    def _retry_after(self, error: FastChatError) -> float:
        """Return seconds that a RATE_LIMITED asks for."""
        wait = error.details.get("retry_after")
        return float(wait) if isinstance(wait, (int, float)) else _backoff.again(self._random, 0)

    def _request(self, line: RequestLine, request: Request, now: float) -> None:
        try:
            encode(request.kind, request.payload)
            problem = unsupported(request.kind, self.capabilities) if self.online else None
            if problem is not None:
                raise problem
        except FastChatError as error:
            request.done[0](None, error)
            return
        line.add(request)
        self.pump(now)

    # -- Out --

    def _say(self, kind: str, data: Data) -> None:
        self._write(encode(kind, data))

    def _acknowledge(self, message: Message) -> None:
        data = {"message_id": message.message_id, "from": message.sender}
        self._repeater.add("MSG_ACK", data)
        if self.online:
            self._say("MSG_ACK", data)

    def _write_message(self, sent: Sent) -> None:
        # A carbon of it, for another connection of this client, is not to be shown.
        self.inbox.remember(self.inbox.user_id, sent.to, sent.message_id)
        self._say("MSG", {"to": sent.to, "content": sent.original, "message_id": sent.message_id})

    def _write_request(self, request: Request) -> None:
        self._say(request.kind, request.payload)

    def _changed(self, sent: Sent) -> None:
        self._emit("receipt", sent)


def _no_answer() -> FastChatError:
    return FastChatError(MESSAGE_FAILED, f"no answer within {ANSWER_TIMEOUT:.0f} seconds")
