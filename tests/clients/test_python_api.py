"""What is the Python client's own and no scenario can say: coroutines as listeners, the iterator, the transport, misuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from fastchat_client import ChatEntry, FastChat, FastChatError, Message
from tests.clients.misbehaving import CAPABILITIES
from tests.clients.network import Data, Network, VirtualLoop
from tests.clients.python_subject import URL, MemoryTransport

ME = "11111111-1111-4111-8111-aaaaaaaaaaaa"
BOB = "22222222-2222-4222-8222-bbbbbbbbbbbb"


class Stage:
    """A client and its server, in virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.network = Network(loop)
        self.client = FastChat(URL, ME, "Me Myself", connector=self._connect, random=lambda: 0.5)

    async def _connect(self, url: str) -> MemoryTransport:
        return MemoryTransport(await self.network.connect(url))

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let something run, as far as it gets without time passing."""
        task = self.loop.create_task(work)
        self.loop.settle()
        return task

    def greet(self, capabilities: list[str] = CAPABILITIES) -> None:
        """Accept the attempt that waits, and HELLO."""
        self.network.links[-1].accepted.set_result(None)
        self.say(
            "HELLO_ACK",
            user_id=ME,
            status="connected",
            capabilities=capabilities,
            cursor="e.0",
            resumed="full",
        )

    def say(self, kind: str, settle: bool = True, /, **data: Any) -> None:
        """From the server."""
        self.network.links[-1].tell(json.dumps({"type": kind, "data": data}))
        if settle:
            self.loop.settle()

    def message(self, seq: int) -> None:
        """A message of Bob's."""
        fields: Data = {"from": BOB, "to": ME, "content": f"text {seq}", "message_id": f"b{seq}"}
        fields |= {"timestamp": "2024-01-01T12:00:00.000Z", "seq": seq, "cursor": f"e.{seq}"}
        self.say("MSG", **fields)

    @property
    def acknowledged(self) -> list[str]:
        """Ids of the messages that were acknowledged on the newest connection, in order."""
        return [
            frame.data["message_id"] for frame in self.network.links[-1].frames if frame.type == "MSG_ACK"
        ]

    def reconnect(self) -> None:
        """Lose the connection, and get another one."""
        self.network.links[-1].close_from_server(1006, "")
        self.loop.advance(1.0)
        self.greet()


@pytest.fixture
def stage() -> Iterator[Stage]:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        yield Stage(loop)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.settle()
        asyncio.set_event_loop(None)
        loop.close()


@pytest.fixture
def online(stage: Stage) -> Stage:
    """A stage whose client is online."""
    stage.begin(stage.client.connect())
    stage.greet()
    assert stage.client.state == "online"
    return stage


# -- Listeners --


def test_messages_wait_for_a_listener(online: Stage) -> None:
    """Nobody has seen them, so they are not acknowledged, and the cursor stays."""
    online.message(1)
    online.message(2)
    assert (online.acknowledged, online.client.cursor) == ([], "e.0")
    came: list[Message] = []
    online.client.on("message", came.append)
    online.loop.settle()
    assert [message.content for message in came] == ["text 1", "text 2"]
    assert (online.acknowledged, online.client.cursor) == (["b1", "b2"], "e.2")


def test_a_coroutine_is_awaited_before_the_next_message(online: Stage) -> None:
    """And before the acknowledgement. Everything else goes on meanwhile."""
    came: list[str] = []
    others: list[str] = []

    async def slow(message: Message) -> None:
        came.append(message.content)
        await asyncio.sleep(10.0)

    online.client.on("message", slow)
    online.client.on("typing", lambda typing: others.append(typing.user_id))
    for seq in (1, 2, 3):
        online.message(seq)
    online.say("TYPING", user_id=BOB, is_typing=True)
    assert (came, others, online.acknowledged) == (["text 1"], [BOB], [])
    online.loop.advance(10.0)
    assert (came, online.acknowledged, online.client.cursor) == (["text 1", "text 2"], ["b1"], "e.1")
    online.loop.advance(20.0)
    assert online.acknowledged == ["b1", "b2", "b3"]


def test_a_connection_that_is_lost_while_a_message_is_being_shown(online: Stage) -> None:
    """It comes again, and is not shown again; it is acknowledged when it has been shown."""
    came: list[str] = []
    done = online.loop.create_future()

    async def slow(message: Message) -> None:
        came.append(message.content)
        await done

    online.client.on("message", slow)
    online.message(1)
    online.message(2)
    online.reconnect()
    online.message(1)
    online.message(2)
    assert (came, online.acknowledged, online.client.cursor) == (["text 1"], [], "e.0")
    done.set_result(None)
    online.loop.settle()
    assert (came, online.acknowledged) == (["text 1", "text 2"], ["b1", "b2"])
    assert online.client.cursor == "e.2"


def test_a_coroutine_that_raises(online: Stage) -> None:
    """An `error` event; the message is not acknowledged, and will come again."""
    errors: list[FastChatError] = []

    async def broken(message: Message) -> None:
        raise RuntimeError("broken")

    online.client.on("message", broken)
    online.client.on("error", errors.append)
    online.message(1)
    assert online.acknowledged == []
    assert [(error.code, repr(error.__cause__)) for error in errors] == [
        ("LISTENER", "RuntimeError('broken')")
    ]


@pytest.mark.parametrize("is_coroutine", [True, False])
def test_a_listener_that_is_cancelled(online: Stage, is_coroutine: bool) -> None:
    """It is not done with its message: as if it had raised. The client goes on."""
    errors: list[FastChatError] = []
    came: list[str] = []

    def cancelled(message: Message) -> None:
        came.append(message.message_id)
        if message.message_id == "b1":
            raise asyncio.CancelledError

    async def cancelled_later(message: Message) -> None:
        await asyncio.sleep(0)
        cancelled(message)

    online.client.on("message", cancelled_later if is_coroutine else cancelled)
    online.client.on("error", errors.append)
    online.message(1)
    online.message(2)
    assert (came, online.acknowledged, online.client.cursor) == (["b1", "b2"], ["b2"], "e.0")
    assert [error.code for error in errors] == ["LISTENER"]


def test_a_listener_that_raises_when_nobody_listens_to_errors(online: Stage) -> None:
    """The event loop is told, as of anything that nobody catches."""
    told: list[Data] = []
    online.loop.set_exception_handler(lambda loop, context: told.append(context))

    def broken(payload: object) -> None:
        raise RuntimeError("broken")

    online.client.on("typing", broken)
    online.say("TYPING", user_id=BOB, is_typing=True)
    online.client.on("error", broken)
    online.say("ERROR", code="VALIDATION", message="whatever", details={"type": "READ"})
    assert [str(context["exception"]) for context in told] == ["broken", "broken"]


def test_a_listener_can_be_removed(online: Stage) -> None:
    """By what `on` has returned, and once is enough."""
    came: list[object] = []
    remove = online.client.on("typing", came.append)
    remove()
    remove()
    online.say("TYPING", user_id=BOB, is_typing=True)
    assert came == []


def test_an_event_that_does_not_exist(stage: Stage) -> None:
    with pytest.raises(ValueError, match="massage"):
        stage.client.on("massage", print)


def test_a_listener_may_call_the_client(online: Stage) -> None:
    """A bot that answers at once."""
    online.client.on("message", lambda message: online.client.send(message.sender, "pong", message_id="m1"))
    online.client.on("message", lambda message: online.client.mark_read(message.message_id, message.sender))
    online.message(1)
    kinds = [frame.type for frame in online.network.links[-1].frames]
    assert sorted(kinds) == ["HELLO", "MSG", "MSG_ACK", "READ"]


# -- The iterator --


def test_the_iterator_acknowledges_when_the_next_is_asked_for(online: Stage) -> None:
    """And gives back what it has not handed out when it is cancelled."""
    came: list[str] = []
    go_on = asyncio.Event()

    async def read() -> None:
        async for message in online.client.messages():
            came.append(message.content)
            await go_on.wait()

    task = online.begin(read())
    for seq in (1, 2, 3):
        online.message(seq)
    assert (came, online.acknowledged) == (["text 1"], [])
    go_on.set()
    online.loop.settle()
    assert online.acknowledged == ["b1", "b2", "b3"]
    go_on.clear()
    online.message(4)
    online.message(5)
    task.cancel()
    online.loop.settle()
    # It had the fourth in its hands; the fifth waits for somebody else.
    assert online.acknowledged == ["b1", "b2", "b3", "b4"]
    online.begin(read())
    assert came[-1] == "text 5"


def test_the_iterator_that_is_cancelled_while_a_message_comes(online: Stage) -> None:
    """The message is not lost: nobody has seen it."""
    came: list[str] = []

    async def read() -> None:
        async for message in online.client.messages():
            came.append(message.content)

    task = online.begin(read())
    online.client.on("typing", lambda _: task.cancel())
    # Both in one turn of the loop: the iterator is cancelled, and gets the message before it notices.
    online.say("TYPING", False, user_id=BOB, is_typing=True)
    online.message(1)
    assert (came, online.acknowledged) == ([], [])
    online.begin(read())
    assert (came, online.acknowledged) == (["text 1"], ["b1"])


def test_the_iterator_ends_with_the_client(online: Stage) -> None:
    """One that begins afterwards is empty."""

    async def read() -> list[str]:
        return [message.content async for message in online.client.messages()]

    task = online.begin(read())
    online.message(1)
    online.begin(online.client.close())
    assert task.result() == ["text 1"]
    assert online.begin(read()).result() == []


# -- The list of chats --


def test_all_chats_are_asked_for_as_they_are_needed(online: Stage) -> None:
    """A page at a time; and the list that is kept is complete then."""
    online.begin(online.client.close())
    online = Stage(online.loop)
    online.begin(online.client.connect())
    online.greet([*CAPABILITIES, "chats", "block"])
    came: list[ChatEntry] = []

    async def read() -> None:
        async for entry in online.client.all_chats(limit=1):
            came.append(entry)

    task = online.begin(read())
    online.say("CHATS", chats=[listed(BOB)], next="c1")
    assert [entry.user_id for entry in came] == [BOB]
    online.say("CHATS", chats=[listed(ME)], next=None)
    assert task.done()
    assert tuple(came) == online.client.chat_list
    asked = [frame.data for frame in online.network.links[-1].frames if frame.type == "CHATS"]
    assert asked == [{"limit": 1}, {"before": "c1", "limit": 1}]


def listed(user_id: str) -> Data:
    """A chat without messages as CHATS has it."""
    entry: Data = {"user_id": user_id, "display_name": "Bobby", "chat_id": "c", "last": None, "unread": 0}
    return entry | {"read": 0, "online": False, "blocked": False, "muted": False}


# -- Calls at unusual times --


def test_before_it_is_connected(stage: Stage) -> None:
    """What was asked for happens then."""
    sent = stage.client.send(BOB, "early")
    stage.client.typing(BOB, True)
    stage.client.mark_read("b1", BOB)
    history = stage.begin(stage.client.history(BOB))
    assert (sent.status, history.done()) == ("queued", False)
    stage.begin(stage.client.connect())
    stage.greet()
    assert [frame.type for frame in stage.network.links[-1].frames] == ["HELLO", "READ", "HISTORY", "MSG"]


def test_after_it_was_closed(online: Stage) -> None:
    """Everything says so, and nothing happens."""
    online.begin(online.client.close())
    online.begin(online.client.close())
    sent = online.client.send(BOB, "late")
    assert (sent.status, sent.error.code if sent.error else None) == ("failed", "CLOSED")
    online.client.typing(BOB, True)
    online.client.mark_read("b1", BOB)
    online.client.retry()
    for work in (
        online.client.connect(),
        online.client.open_chat(BOB, "Bobby"),
        online.client.history(BOB),
        online.client.list_chats(),
        online.client.hide(BOB),
        online.client.mute(BOB),
        online.client.unmute(BOB),
        online.client.block(BOB),
        online.client.unblock(BOB),
        sent.read(),
    ):
        error = online.begin(work).exception()
        assert isinstance(error, FastChatError)
        assert error.code == "CLOSED"
    assert len(online.network.links) == 1


def test_closed_before_it_was_connected(stage: Stage) -> None:
    """connect() raises, and there is no attempt."""
    stage.begin(stage.client.close())
    assert isinstance(stage.begin(stage.client.connect()).exception(), FastChatError)
    assert stage.network.links == []


def test_connecting_twice(stage: Stage) -> None:
    """Is one connection; who does not want to wait any longer may stop waiting."""
    first, second = stage.begin(stage.client.connect()), stage.begin(stage.client.connect())
    first.cancel()
    stage.greet()
    assert second.result() is None
    assert stage.begin(stage.client.connect()).result() is None
    assert len(stage.network.links) == 1


def test_retry_does_not_wait(online: Stage) -> None:
    """For programs that know that the network is back."""
    online.network.links[-1].close_from_server(1013, "")
    online.loop.settle()
    assert online.client.retry_at is not None
    online.client.retry()
    online.loop.settle()
    online.greet()
    assert online.client.state == "online"


def test_ids_in_upper_case(online: Stage) -> None:
    """The server writes them in lower case."""
    client = online.client
    opening = online.begin(client.open_chat(BOB.upper(), "Bobby"))
    participants = [ME, BOB]
    opened = {"target_user_id": BOB, "target_display_name": "Bobby"}
    online.say("CHAT_OPENED", chat_id="c", participants=participants, **opened)
    assert opening.result().user_id == BOB
    assert online.begin(client.open_chat(BOB.upper(), "Bobby")).result().chat_id == "c"
    sent = client.send(BOB.upper(), "Hi", message_id="m1")
    assert client.send(BOB, "Hi", message_id="m1") is sent
    online.loop.settle()
    for status in ("accepted", "delivered"):
        online.say("MSG_ACK", message_id="m1", status=status, to=BOB)
        assert sent.status == status
    page = online.begin(client.history(BOB.upper()))
    online.say("HISTORY", messages=[], next=None, **{"with": BOB})
    assert page.result().next is None


def test_a_chat_is_opened_again_once_for_a_history(online: Stage) -> None:
    """A server that goes on saying CHAT_NOT_OPENED is believed."""
    opened = {
        "chat_id": "c",
        "participants": [ME, BOB],
        "target_user_id": BOB,
        "target_display_name": "Bobby",
    }
    refused = {"code": "CHAT_NOT_OPENED", "message": "no chat", "details": {"type": "HISTORY"}}
    online.say("CHAT_OPENED", **opened)
    page = online.begin(online.client.history(BOB))
    online.say("ERROR", **refused)
    online.say("CHAT_OPENED", **opened)
    kinds = [frame.type for frame in online.network.links[-1].frames]
    assert kinds == ["HELLO", "HISTORY", "OPEN_CHAT", "HISTORY"]
    online.say("ERROR", **refused)
    error = page.exception()
    assert isinstance(error, FastChatError)
    assert error.code == "CHAT_NOT_OPENED"


def test_what_is_no_text(stage: Stage) -> None:
    """Is refused at once."""
    with pytest.raises(FastChatError, match="VALIDATION"):
        FastChat(URL, ME, "half of a pair: \ud83d")
    with pytest.raises(ValueError, match="http://"):
        FastChat("http://localhost:8000", ME, "Me Myself")
    calls: list[Callable[[], object]] = [
        lambda: stage.client.typing("\ud83d", True),
        lambda: stage.client.mark_read("\ud83d", BOB),
    ]
    for call in calls:
        with pytest.raises(FastChatError, match="VALIDATION"):
            call()
    assert isinstance(stage.begin(stage.client.open_chat("\ud83d", "Bobby")).exception(), FastChatError)


def test_it_can_be_shown(online: Stage) -> None:
    sent = online.client.send(BOB, "Hi", message_id="m1")
    assert repr(sent) == f"Sent(to='{BOB}', message_id='m1', status='sent')"
    assert repr(online.client) == f"FastChat(url='{URL}', user_id='{ME}', state='online')"
