"""The Python client as the player of the scenarios wants it: names and fields of JavaScript's, a network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastchat_client import (
    Chat,
    ChatEntry,
    ChatPage,
    Closed,
    ConnectionEnded,
    Connector,
    FastChat,
    FastChatError,
    History,
    Message,
    Presence,
    Sent,
    StateChange,
    Typing,
)
from tests.clients import network as memory
from tests.clients.network import Data, Link, Network, VirtualLoop

URL = "ws://server.invalid/ws"


class MemoryTransport:
    """A connection of the network in memory."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unsent: asyncio.Queue[str | None] = asyncio.Queue()
        self._writer = asyncio.ensure_future(self._write())

    def send(self, text: str) -> None:
        self._unsent.put_nowait(text)

    async def receive(self) -> str:
        try:
            return await self._link.recv()
        except memory.Closed as closed:
            raise ConnectionEnded(closed.code, closed.reason) from None

    async def close(self, code: int, reason: str) -> None:
        self._unsent.put_nowait(None)
        await self._writer
        await self._link.close(code, reason)

    def abort(self) -> None:
        self._writer.cancel()
        self._closing = asyncio.ensure_future(self._link.close(1000))

    async def _write(self) -> None:
        try:
            while (text := await self._unsent.get()) is not None:
                await self._link.send(text)
        except memory.Closed:
            pass  # who receives is told


class PythonSubject:
    """See ``misbehaving.Subject``."""

    def __init__(
        self, loop: VirtualLoop, network: Network, options: Data, connector: Connector | None = None
    ) -> None:
        async def connect(url: str) -> MemoryTransport:
            assert url == URL
            try:
                return MemoryTransport(await network.connect(url))
            except memory.Refused as refused:
                reason = f"the server answers HTTP {refused.status}" if refused.status else str(refused)
                raise ConnectionEnded(1006, reason, refused.status) from None

        self._client = FastChat(
            URL,
            options["userId"],
            options["displayName"],
            token=options["token"],
            cursor=options["cursor"],
            connector=connector or connect,
            random=options["random"],
        )
        self.events: list[tuple[str, Data]] = []
        self._throwing: set[str] = set()
        self._closing: set[str] = set()
        self._waiting: set[str] = set()
        #: What the listeners are still busy with: the event, and what they wait for.
        self._unfinished: list[tuple[str, asyncio.Future[None]]] = []
        self._closes: list[asyncio.Future[None]] = []
        self._payloads: list[object] = []
        for event in ("state", "presence", "chat", "chats", "message", "typing", "receipt", "error"):
            self._listen(event)

    def _listen(self, event: str) -> None:
        def came(payload: Any) -> asyncio.Future[None] | None:
            self.events.append((event, self.plain(payload)))
            self._payloads.append(payload)
            if event in self._closing:
                self._closing.remove(event)
                self._closes.append(asyncio.ensure_future(self._client.close()))
            if event in self._throwing:
                self._throwing.remove(event)
                raise RuntimeError("thrown by the scenario")
            if event not in self._waiting:
                return None
            done = asyncio.get_running_loop().create_future()
            self._unfinished.append((event, done))
            return done

        self._client.on(event, came)

    def call(self, method: str, arguments: list[Any]) -> Any:
        client = self._client
        keywords: Data = {}
        if arguments and isinstance(arguments[-1], dict):
            *arguments, options = arguments
            keywords = {{"messageId": "message_id"}.get(name, name): value for name, value in options.items()}
        methods: dict[str, Callable[..., Any]] = {
            "connect": client.connect,
            "close": client.close,
            "openChat": client.open_chat,
            "send": client.send,
            "history": client.history,
            "listChats": client.list_chats,
            "hide": client.hide,
            "mute": client.mute,
            "unmute": client.unmute,
            "block": client.block,
            "unblock": client.unblock,
            "typing": client.typing,
            "markRead": client.mark_read,
            "askPresence": client.ask_presence,
            "renew": client.renew,
        }
        return methods[method](*arguments, **keywords)

    def shown(self) -> str:
        client, shown = self._client, [repr(self.events)]
        for payload in [client, client.closed, *self._payloads]:
            shown += [repr(payload), str(payload)]
            while isinstance(payload, BaseException):
                shown.append(f"{payload!r} {payload}")
                payload = payload.__cause__ or payload.__context__
        return "\n".join(shown)

    def look(self) -> Data:
        client = self._client
        return {
            "state": client.state,
            "closed": self.plain(client.closed),
            "retryAt": client.retry_at,
            "cursor": client.cursor,
            "presence": dict(client.presence),
            "presenceScope": client.presence_scope,
            "chatList": [self.plain(entry) for entry in client.chat_list],
            "listed": [entry.user_id for entry in client.chat_list],
        }

    def look_at_sent(self, sent: Any) -> Data:
        assert isinstance(sent, Sent)
        error = sent.error.code if sent.error is not None else None
        return {"status": sent.status, "error": error, "content": sent.content, "original": sent.original}

    def promise(self, sent: Any, name: str) -> Awaitable[Any]:
        assert isinstance(sent, Sent)
        return {"accepted": sent.accepted, "delivered": sent.delivered, "read": sent.read}[name]()

    def plain(self, value: Any) -> Any:
        match value:
            case Chat():
                return {
                    "chatId": value.chat_id,
                    "userId": value.user_id,
                    "displayName": value.display_name,
                }
            case Closed():
                return _without_none(
                    {
                        "code": value.code,
                        "reason": value.reason,
                        "refused": value.refused,
                        "status": value.status,
                    }
                )
            case StateChange():
                return _without_none(
                    {
                        "state": value.state,
                        "closed": self.plain(value.closed),
                        "lost": self.plain(value.lost),
                        "resumed": value.resumed,
                    }
                )
            case Message():
                return _without_none(
                    {
                        "from": value.sender,
                        "to": value.to,
                        "content": value.content,
                        "messageId": value.message_id,
                        "timestamp": value.timestamp,
                        "seq": value.seq,
                        "own": value.own or None,
                        "read": value.read or None,
                    }
                )
            case ChatEntry():
                return _plain_entry(value)
            case ChatPage():
                return {"chats": [_plain_entry(entry) for entry in value.chats], "next": value.next}
            case list():
                return [self.plain(entry) for entry in value]
            case History():
                return {"messages": [self.plain(message) for message in value.messages], "next": value.next}
            case Typing():
                return {"userId": value.user_id, "isTyping": value.is_typing}
            case Sent():
                return {"messageId": value.message_id, "status": value.status, "content": value.content}
            case FastChatError():
                return {"code": value.code, "message": value.message, "details": dict(value.details)}
            case Presence():
                return {"users": dict(value), "scope": value.scope}
            case _:
                return value

    def error_code(self, error: BaseException) -> str:
        assert isinstance(error, FastChatError), f"{error!r} is not the client's"
        return error.code

    def throw_next(self, event: str) -> None:
        self._throwing.add(event)

    def wait_next(self, event: str) -> None:
        self._waiting.add(event)

    def end_listener(self, event: str, fails: bool) -> None:
        self._waiting.discard(event)
        entry = next(entry for entry in self._unfinished if entry[0] == event)
        self._unfinished.remove(entry)
        if fails:
            entry[1].set_exception(RuntimeError("rejected by the scenario"))
        else:
            entry[1].set_result(None)

    def close_at(self, event: str) -> None:
        self._closing.add(event)


def _plain_entry(entry: ChatEntry) -> Data:
    last = entry.last
    return _without_none(
        {
            "userId": entry.user_id,
            "displayName": entry.display_name,
            "chatId": entry.chat_id,
            "unread": entry.unread,
            "read": entry.read,
            "online": entry.online,
            "blocked": entry.blocked,
            "muted": entry.muted,
            "hidden": entry.hidden or None,
        }
    ) | {
        "last": None
        if last is None
        else {
            "from": last.sender,
            "content": last.content,
            "timestamp": last.timestamp,
            "messageId": last.message_id,
        }
    }


def _without_none(data: Data) -> Data:
    return {name: value for name, value in data.items() if value is not None}
