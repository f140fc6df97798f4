"""The client: `FastChat`."""

from __future__ import annotations

import asyncio
import random as _random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self
from uuid import uuid4

from fastchat_client._codes import TIMEOUT
from fastchat_client._events import Listener, NotShown
from fastchat_client._machine import Machine, closed_error
from fastchat_client._requests import Done
from fastchat_client._runner import Runner
from fastchat_client._tokens import Token, split
from fastchat_client._transport import Connector, connect_websocket
from fastchat_client.models import (
    Chat,
    ChatEntry,
    ChatPage,
    Closed,
    FastChatError,
    History,
    Message,
    Scope,
    Sent,
    State,
)


class FastChat:
    """One device of one user.

        async with FastChat("ws://localhost:8000/ws", my_id, "Alice") as chat:
            await chat.open_chat(her_id, "Bobby")
            await chat.send(her_id, "Hello!").accepted()
            async for message in chat.messages():
                print(message.content)

    It stays connected by itself until it is closed, and comes back after every loss. `cursor` is where to go on: the `cursor` of an earlier
    client of this user on this device. `connector` and `random` are for tests; time is the event loop's. Raises FastChatError(VALIDATION)
    when what identifies the user is no text or too long to be sent, and ValueError when `url` does not begin with ``ws://`` or ``wss://``.
    All methods belong to one event loop.

    `token` proves who the user is, where the server wants that: a JSON Web Token whose `sub` is `user_id`, or a function (or coroutine
    function) that gives one and is asked before each HELLO: at each connection, and when the token is about to run out. It has 15
    seconds. If it fails, the event `error` tells it (TOKEN), and it is asked again after a while; so it is when the server refuses its
    token as ``expired`` or ``early``, or the token has run out. A string that is about to run out is told by `error` (UNAUTHORIZED, with
    `expires_in` in its details): see `renew`. When it is refused or has run out, the client is closed, and `closed.refused` says why.
    """

    def __init__(
        self,
        url: str,
        user_id: str,
        display_name: str,
        *,
        token: Token | None = None,
        cursor: str | None = None,
        connector: Connector = connect_websocket,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"the URL of a WebSocket begins with ws:// or wss://, this is {url!r}")
        self.url = url
        self.display_name = display_name
        self._runner = Runner(url, connector)
        said, self._runner.token_source = split(token)
        asks = self._runner.token_source is not None
        self._machine = Machine(self._runner, user_id, display_name, cursor, random, said, asks)
        self._runner.run(self._machine)
        self._conversation = self._machine.conversation

    def __repr__(self) -> str:
        return f"FastChat(url={self.url!r}, user_id={self.user_id!r}, state={self.state!r})"

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- The connection --

    async def connect(self, timeout: float | None = None) -> None:
        """Start, and wait until the server has said HELLO_ACK: so many seconds, or as long as it takes.

        Raises FastChatError: CLOSED when it is closed for good before that, as it is when the answer to its first connection is a status
        of HTTP which says that this is no FastChat, or refuses this client (404, 403 ...); TIMEOUT, with the last reason, when the
        time is over. After TIMEOUT it goes on trying: wait again, or close it.
        """
        self._runner.start()
        try:
            async with asyncio.timeout(timeout):
                await self._runner.first()
        except TimeoutError:
            why = self._machine.problem or "no answer yet"
            raise FastChatError(TIMEOUT, f"not online within {timeout:g} s: {why}") from None
        except FastChatError:
            await self._runner.finished()
            raise

    async def close(self) -> None:
        """End it for good, and wait until the connection is closed. What the server does not have yet fails with CLOSED."""
        self._machine.close(self._runner.now())
        self._runner.settle()
        await self._runner.finished()

    def renew(self, token: Token) -> None:
        """Go on with another token: said on the connection that is there, which stays as it is, or else on the next one.

        If it is refused, that is as if it had been the option. Raises FastChatError(VALIDATION) when it can be no token.
        """
        said, self._runner.token_source = split(token)
        self._machine.renew(said, self._runner.token_source is not None, self._runner.now())
        self._runner.settle()

    def retry(self) -> None:
        """Try to connect at once, instead of at `retry_at`: for programs that notice that the network is back."""
        self._machine.retry(self._runner.now())
        self._runner.settle()

    @property
    def state(self) -> State:
        """``connecting``, ``online``, ``waiting`` (until `retry_at`) or ``closed`` (for good; `closed` says why)."""
        return self._machine.state

    @property
    def retry_at(self) -> float | None:
        """While `waiting`: when it will be tried again, on the clock of the event loop."""
        return self._machine.retry_at

    @property
    def closed(self) -> Closed | None:
        """Why it is closed for good."""
        return self._machine.closed

    @property
    def user_id(self) -> str:
        """As given, and once online as the server writes it."""
        return self._conversation.inbox.user_id

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server granted of receipts, resume, history, carbons, presence_delta, chats and block."""
        return self._conversation.capabilities

    @property
    def cursor(self) -> str | None:
        """Where to go on after what the listeners have been shown; keep it for the next client of this user on this device."""
        return self._conversation.inbox.cursor

    @property
    def presence(self) -> Mapping[str, str]:
        """Who is online: user id -> display name. A live view."""
        return MappingProxyType(self._conversation.people.presence)

    @property
    def presence_scope(self) -> Scope | None:
        """Whose presence the server tells: of ``everyone``, or of the people with whom there is a chat (``contacts``); None if it has not
        said so."""
        return self._conversation.people.presence.scope

    @property
    def chats(self) -> Mapping[str, Chat]:
        """The chats that were opened since this object was made, by either side: user id of the other person -> chat. A live view."""
        return MappingProxyType(self._conversation.chats)

    @property
    def chat_list(self) -> Sequence[ChatEntry]:
        """The list of chats, the last one that was written in first: as far as `list_chats` has asked for it, and always as it is now.

        Chats in which something happens are in it wherever they stood before. Empty before the first `list_chats`.
        """
        return tuple(self._conversation.lists.kept.ordered)

    # -- Talking --

    async def open_chat(self, user_id: str, display_name: str) -> Chat:
        """Open the chat with a user. Raises FastChatError, USER_NOT_FOUND if the server has never seen this user."""

        def ask(done: Done) -> None:
            self._conversation.open_chat(user_id, display_name, done, self._runner.now())

        chat: Chat = await self._answer(ask)
        return chat

    def send(self, to: str, content: str, *, message_id: str | None = None) -> Sent:
        """Send a message to a user with whom a chat is open; what becomes of it shows in what is returned.

        It is sent again until the server has it, over as many connections as that takes, always with the same `message_id`. Who sends the
        same with the same `message_id` again gets what was returned the first time: it is one message.
        """
        sent = Sent(to, content, message_id if message_id is not None else str(uuid4()))
        if self.closed is not None:
            sent.end(closed_error(self.closed))
        else:
            sent = self._conversation.send(sent, self._runner.now())
            self._runner.settle()
        return sent

    async def history(self, user_id: str, *, before: str | None = None, limit: int | None = None) -> History:
        """Ask for what was written with a user, newest first: at most `limit` messages (50). `before` is the `next` of the last page.

        Raises FastChatError: UNSUPPORTED when the server keeps no history, CHAT_NOT_OPENED when there is no chat.
        """

        def ask(done: Done) -> None:
            self._conversation.history(user_id, before, limit, done, self._runner.now())

        history: History = await self._answer(ask)
        return history

    async def list_chats(self, *, before: str | None = None, limit: int | None = None) -> ChatPage:
        """Ask for the list of chats, the last one that was written in first: at most `limit` (50). `before` is the `next` of the last page.

        From the first call on the client keeps `chat_list`, and asks for as much of it again after each reconnection. Raises FastChatError,
        UNSUPPORTED when the server keeps no list.
        """

        def ask(done: Done) -> None:
            self._conversation.list_chats(before, limit, done, self._runner.now())

        page: ChatPage = await self._answer(ask)
        return page

    async def all_chats(self, *, limit: int | None = None) -> AsyncIterator[ChatEntry]:
        """Iterate over the whole list of chats; it is asked for in pages of at most `limit` chats (50), as they are needed."""
        before: str | None = None
        while True:
            page = await self.list_chats(before=before, limit=limit)
            for entry in page.chats:
                yield entry
            before = page.next
            if before is None:
                return

    async def hide(self, user_id: str) -> ChatEntry:
        """Take a chat out of the list until somebody writes in it. It is done when this returns, on all devices of the user.

        This and the four that follow return the chat as it is then. Raises FastChatError: what the server says against it, MESSAGE_FAILED
        when it has not confirmed it in time (it may have been done), UNSUPPORTED when it can't do this. What is not confirmed on one
        connection is said again on the next one.
        """
        return await self._command("HIDE", user_id)

    async def mute(self, user_id: str) -> ChatEntry:
        """Mute a chat: the server marks it in the list, and the programs of the user are to keep quiet about it."""
        return await self._command("MUTE", user_id)

    async def unmute(self, user_id: str) -> ChatEntry:
        """End `mute`."""
        return await self._command("UNMUTE", user_id)

    async def block(self, user_id: str) -> ChatEntry:
        """Block a user, with whom there need not be a chat: until `unblock` neither hears of the other, who is not told of it.

        Messages to a user whom one has blocked fail with CHAT_NOT_OPENED, and ``details["blocked"]``.
        """
        return await self._command("BLOCK", user_id)

    async def unblock(self, user_id: str) -> ChatEntry:
        """End `block`. What the other one wrote meanwhile does not come any more."""
        return await self._command("UNBLOCK", user_id)

    def typing(self, user_id: str, is_typing: bool) -> None:
        """Tell a user that this one is typing, or has stopped. Call it at every key: it is told as often as the server's limits allow."""
        self._conversation.typing(user_id, is_typing, self._runner.now())

    def mark_read(self, message_id: str, sender: str) -> None:
        """Mark a message from `sender`, and all before it, as read, on all devices; the sender is told if the server knows receipts.

        Call it for every message: the server is told at most once a second of each sender, and again after a reconnection if it may not
        have heard of it. Servers without the capability `chats` take it for this one message.
        """
        if self.closed is None:
            self._conversation.mark_read(message_id, sender, self._runner.now())
            self._runner.settle()

    def ask_presence(self, user_ids: Iterable[str]) -> None:
        """Ask who of these people, with whom there is a chat, is online; the answer is an event `presence`.

        It is asked at once or, when not online or without the capability presence_delta, not at all.
        """
        self._conversation.ask_presence(user_ids)

    # -- Listening --

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the payload of every event of this name, and await what it returns; what is returned here ends that.

        | event      | payload                                                             |
        |------------|---------------------------------------------------------------------|
        | `state`    | StateChange                                                         |
        | `presence` | Presence: dict of user id -> display name of who is online, `scope` |
        | `chat`     | Chat: it is open, whoever opened it                                 |
        | `chats`    | list of ChatEntry: chats that have changed; see `chat_list`         |
        | `message`  | Message                                                             |
        | `typing`   | Typing                                                              |
        | `receipt`  | Sent, which has changed                                             |
        | `error`    | FastChatError, which belongs to nothing that somebody waits for     |

        A message is acknowledged, and the next one shown, when all its listeners are done. If one raises, `error` tells it, the message is
        not acknowledged, and comes again with the next connection; `cursor` stays before it until then. The fifth time it counts as
        shown. Messages wait until there is a listener for them.
        """
        return self._runner.events.on(event, listener)

    async def messages(self) -> AsyncIterator[Message]:
        """Iterate over the messages that come, until the client is closed; each is acknowledged when the next one is asked for."""
        coming: asyncio.Queue[tuple[Message, asyncio.Future[None]] | None] = asyncio.Queue()

        def came(message: Message) -> asyncio.Future[None]:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            coming.put_nowait((message, done))
            return done

        def changed(_: object) -> None:
            if self.closed is not None:
                coming.put_nowait(None)

        removers = [self.on("message", came), self.on("state", changed)]
        changed(None)
        try:
            while (entry := await coming.get()) is not None:
                message, done = entry
                try:
                    yield message
                finally:
                    done.set_result(None)
        finally:
            for remove in removers:
                remove()
            while not coming.empty():
                if (entry := coming.get_nowait()) is not None:
                    entry[1].set_exception(NotShown())

    # -- Inside --

    async def _command(self, kind: str, user_id: str) -> ChatEntry:
        def ask(done: Done) -> None:
            self._conversation.command(kind, user_id, done, self._runner.now())

        entry: ChatEntry = await self._answer(ask)
        return entry

    async def _answer(self, ask: Callable[[Done], None]) -> Any:
        """Wait for the answer to a request that tells `done`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: FastChatError | None) -> None:
            if answer.done():
                return  # nobody waits any more
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        if self.closed is not None:
            raise closed_error(self.closed)
        ask(done)
        self._runner.settle()
        return await answer
