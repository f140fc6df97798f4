"""The hook for waiting messages (D33): a real server, a real web server, and the published library of Standard Webhooks.

A user counts as away after 5 s, so these tests take longer than others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from core.chat.chat import chat_id
from tests.hook_receiver import Receiver, new_secret, secret_file
from tests.router import command
from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.status import figure

pytestmark = pytest.mark.slow

#: Seconds until somebody is told of, on a machine that is busy with other tests.
PATIENCE = 60.0


@pytest.fixture
def secret() -> str:
    return new_secret()


@pytest.fixture
def path(tmp_path: Path, secret: str) -> Path:
    return secret_file(tmp_path / "secret", secret)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def server(start_server: StartServer, receiver: Receiver, path: Path) -> Server:
    """One with a hook."""
    return start_server(hook_url=receiver.url, hook_secret_file=path)


def calls(server: Server, outcome: str) -> float:
    """How many calls have ended so."""
    return figure(server, "worker", f'hook_calls_total{{outcome="{outcome}"}}')


def told(receiver: Receiver, number: int) -> list[dict[str, Any]]:
    """What the first calls have said, once there are so many."""
    wait_until(lambda: len(receiver.calls) >= number, f"{number} calls of the hook", PATIENCE)
    return receiver.said()


async def leave_message(
    server: Server, content: str = "are you there?", workers: int = 2
) -> tuple[str, str, str]:
    """Somebody writes to somebody on another worker who has been there for a moment: both ids, and that of the message."""
    ann_id, bob_id = user_on_worker(0, workers), user_on_worker(workers - 1, workers)
    async with ChatClient(server.url, ann_id, "Ann") as ann:
        await ann.hello()
        async with ChatClient(server.url, bob_id, "Bob") as bob:
            await bob.hello()
        await ann.open_chat(bob)
        ack = await ann.message(bob, content)
    return ann_id, bob_id, ack["message_id"]


@run_async
async def test_d33_the_published_library_verifies_what_the_server_sends(
    server: Server, receiver: Receiver, secret: str
) -> None:
    ann, bob, message_id = await leave_message(server)
    (said,) = told(receiver, 1)
    (call,) = receiver.calls
    assert Webhook(secret).verify(call.body, call.headers) == said
    assert said == {
        "type": "message.waiting",
        "to": bob,
        "from": ann,
        "display_name": "Ann",
        "chat_id": chat_id(ann, bob),
        "message_id": message_id,
        "count": 1,
    }
    wait_until(lambda: calls(server, "told") == 1, "the metric")


@run_async
async def test_d33_while_the_hook_is_down_or_answers_otherwise_the_call_is_repeated(
    start_server: StartServer, path: Path
) -> None:
    """Nobody there, 500, and a redirect to an address that only the server can reach; then it is told, once."""
    with Receiver() as gone:
        port = gone.port
    server = start_server(hook_url=f"http://127.0.0.1:{port}/hook", hook_secret_file=path)
    await leave_message(server)
    wait_until(lambda: calls(server, "failed") >= 1, "a call that fails", PATIENCE)
    with Receiver(port) as receiver, Receiver() as internal:
        receiver.status = 500
        told(receiver, 1)
        receiver.status, receiver.headers = 307, {"Location": internal.url}
        told(receiver, 2)
        receiver.status, receiver.headers = 200, {}
        told(receiver, 3)
        wait_until(lambda: calls(server, "told") == 1, "the call that was told")
        assert not internal.calls
        assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
        # Another chat is told of later than a repetition would be.
        receiver.calls.clear()
        await leave_message(server)
        assert len(told(receiver, 1)) == 1
    assert "a call of the hook failed, and will be repeated" in server.output()


@run_async
async def test_d33_gone_is_not_repeated(server: Server, receiver: Receiver) -> None:
    receiver.status = 410
    await leave_message(server)
    told(receiver, 1)
    wait_until(lambda: calls(server, "gone") == 1, "the answer 410", PATIENCE)
    _, bob, _ = await leave_message(server)
    assert [said["to"] for said in told(receiver, 2)[1:]] == [bob]


@run_async
async def test_d33_a_slow_hook_is_in_nobody_s_way(server: Server, receiver: Receiver) -> None:
    """All calls that may be on their way are, and none is answered."""
    receiver.answers.clear()
    for _ in range(12):
        await leave_message(server)
    told(receiver, 8)
    ann, bob = ChatClient(server.url, name="Ann"), ChatClient(server.url, name="Bob")
    async with ann, bob:
        await ann.hello()
        await bob.hello()
        await ann.open_chat(bob)
        for number in range(50):
            await ann.message(bob, f"message {number}")
            await bob.receive("MSG", content=f"message {number}")
    assert len(receiver.calls) <= 8
    receiver.answers.set()
    told(receiver, 12)


@run_async
async def test_d33_calls_survive_the_death_of_everything(
    start_server: StartServer, receiver: Receiver, path: Path
) -> None:
    """What was told is not told again; what was not, and who was online with something unread, is."""
    server = start_server(hook_url=receiver.url, hook_secret_file=path)
    await leave_message(server)
    told(receiver, 1)
    wait_until(lambda: calls(server, "told") == 1, "the call that was told")
    receiver.status = 500
    _, second, _ = await leave_message(server)
    told(receiver, 2)
    wait_until(lambda: calls(server, "failed") == 1, "the call that failed")
    ann, bob = ChatClient(server.url, name="Ann"), ChatClient(server.url, name="Bob")
    async with ann, bob:
        await ann.hello()
        await bob.hello()
        await ann.open_chat(bob)
        await bob.send("MSG_ACK", message_id="none", status="delivered")
        await ann.message(bob, "not acknowledged")
        await bob.receive("MSG")
        server.kill()
    receiver.status = 200
    receiver.calls.clear()
    server.start()
    said = told(receiver, 2)
    assert sorted(each["to"] for each in said) == sorted([second, bob.user_id])
    wait_until(lambda: calls(server, "told") == 2, "the calls that were told")
    _, last, _ = await leave_message(server)
    assert [each["to"] for each in told(receiver, 3)[2:]] == [last]


@run_async
async def test_d33_calls_survive_a_reload_and_a_resize(server: Server, receiver: Receiver) -> None:
    await leave_message(server)
    told(receiver, 1)
    wait_until(lambda: calls(server, "told") == 1, "the call that was told")
    receiver.status = 500
    _, second, _ = await leave_message(server)
    told(receiver, 2)
    for arguments in (("reload",), ("resize", "3")):
        done = command.fastchat(*arguments, "--admin", server.admin_url)
        assert done.returncode == 0, done
    receiver.status = 200
    seen = len(receiver.calls)
    told(receiver, seen + 1)
    wait_until(lambda: calls(server, "told") == 1, "the call that was told")
    assert {each["to"] for each in receiver.said()[1:]} == {second}
    seen = len(receiver.calls)
    _, last, _ = await leave_message(server, workers=3)
    assert [each["to"] for each in told(receiver, seen + 1)[seen:]] == [last]


def test_d33_the_command_sends_a_signed_call(receiver: Receiver, path: Path, secret: str) -> None:
    flags = ("--hook-url", receiver.url, "--hook-secret-file", str(path))
    done = command.fastchat("hook", "test", "bob", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.fullmatch(r"status 200 after \d+ ms: a message would count as told\n", done.stdout)
    (call,) = receiver.calls
    assert Webhook(secret).verify(call.body, call.headers) == {"type": "hook.test", "to": "bob"}
    receiver.status = 503
    done = command.fastchat("hook", "test", hook_url=receiver.url, hook_secret_file=path)
    assert done.returncode == 1
    assert re.fullmatch(r"status 503 after \d+ ms: a message would not count as told\n", done.stdout)
    done = command.fastchat("hook", "test")
    assert done.returncode == 2
    assert "there is no hook: set FASTCHAT_HOOK_URL and FASTCHAT_HOOK_SECRET_FILE" in done.stderr
