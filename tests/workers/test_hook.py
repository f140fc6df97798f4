"""workers.hook: real requests to a real web server, verified by the published library of Standard Webhooks (D33)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.chat.ports import HookOutcome, WaitingCall
from core.process.settings import ConfigurationError, Settings
from tests.hook_receiver import Receiver, new_secret, secret_file
from workers import hook
from workers.hook import HookClient

_CALL = WaitingCall("bob", "ann", 1, "msg_1", b'{"type":"message.waiting","to":"bob"}')


def outcomes(
    settings: Settings,
    calls: int = 1,
    meanwhile: Callable[[HookClient], Coroutine[Any, Any, None]] | None = None,
) -> list[HookOutcome]:
    """How some calls at once end."""

    async def run() -> list[HookOutcome]:
        ended: asyncio.Queue[HookOutcome] = asyncio.Queue()
        client = HookClient(settings, lambda call, outcome: ended.put_nowait(outcome))
        try:
            for _ in range(calls):
                client.send(_CALL)
            if meanwhile is not None:
                await meanwhile(client)
            return [await ended.get() for _ in range(calls)]
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.fixture
def secret() -> str:
    return new_secret()


@pytest.fixture
def path(tmp_path: Path, secret: str) -> Path:
    return secret_file(tmp_path / "secret", secret)


def test_a_call_is_a_post_that_the_library_verifies(secret: str, path: Path) -> None:
    with Receiver() as receiver:
        assert outcomes(Settings(hook_url=receiver.url, hook_secret_file=path)) == [HookOutcome.TOLD]
        (call,) = receiver.calls
    assert call.path == "/hook?from=fastchat"
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["webhook-id"] == "msg_1"
    assert Webhook(secret).verify(call.body, call.headers) == {"type": "message.waiting", "to": "bob"}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(call.body, call.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(call.body + b" ", call.headers)


def test_while_the_secret_changes_either_verifies(secret: str, tmp_path: Path) -> None:
    old = new_secret()
    path = secret_file(tmp_path / "two", secret, old)
    with Receiver() as receiver:
        outcomes(Settings(hook_url=receiver.url, hook_secret_file=path))
        (call,) = receiver.calls
    for each in (secret, old):
        Webhook(each).verify(call.body, call.headers)


def test_secrets_are_read_again_and_bad_ones_change_nothing(secret: str, path: Path) -> None:
    another = new_secret()
    with Receiver() as receiver:

        async def change(client: HookClient) -> None:
            secret_file(path, another)
            client.reload_secrets()
            client.send(_CALL)
            secret_file(path, "nonsense")
            with pytest.raises(ConfigurationError):
                client.reload_secrets()
            while len(receiver.calls) < 2:  # noqa: ASYNC110 - they come in another thread
                await asyncio.sleep(0.01)

        outcomes(Settings(hook_url=receiver.url, hook_secret_file=path), 1, change)
        for call in receiver.calls:
            Webhook(another).verify(call.body, call.headers)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((200, HookOutcome.TOLD), (204, HookOutcome.TOLD), (202, HookOutcome.TOLD)),
        *((410, HookOutcome.GONE), (404, HookOutcome.FAILED), (429, HookOutcome.FAILED)),
        *((500, HookOutcome.FAILED), (304, HookOutcome.FAILED), (401, HookOutcome.FAILED)),
    ],
)
def test_what_an_answer_means(path: Path, status: int, outcome: HookOutcome) -> None:
    with Receiver() as receiver:
        receiver.status = status
        assert outcomes(Settings(hook_url=receiver.url, hook_secret_file=path)) == [outcome]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(path: Path, status: int) -> None:
    """Not to an address that only this machine can reach, nor to another."""
    with Receiver() as receiver, Receiver() as internal:
        receiver.status, receiver.headers = status, {"Location": internal.url}
        assert outcomes(Settings(hook_url=receiver.url, hook_secret_file=path)) == [HookOutcome.FAILED]
        assert not internal.calls
        assert len(receiver.calls) == 1


def test_a_long_body_is_not_read(path: Path) -> None:
    with Receiver() as receiver:
        receiver.body = b"x" * 20_000_000
        settings = Settings(hook_url=receiver.url, hook_secret_file=path)
        assert outcomes(settings, 3) == [HookOutcome.TOLD] * 3


def test_nobody_there_is_a_failure(path: Path) -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert outcomes(Settings(hook_url=url, hook_secret_file=path)) == [HookOutcome.FAILED]


def test_no_answer_in_time_is_a_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "TIMEOUT", 0.2)
    with Receiver() as receiver:
        receiver.answers.clear()
        settings = Settings(hook_url=receiver.url, hook_secret_file=path)
        assert outcomes(settings, 3) == [HookOutcome.FAILED] * 3


def test_calls_on_their_way_end_with_the_process(path: Path) -> None:
    """Nobody is told how: the next process repeats them."""

    async def run(receiver: Receiver) -> None:
        told: list[HookOutcome] = []
        settings = Settings(hook_url=receiver.url, hook_secret_file=path)
        client = HookClient(settings, lambda call, outcome: told.append(outcome))
        client.send(_CALL)
        while not receiver.calls:  # noqa: ASYNC110 - they come in another thread
            await asyncio.sleep(0.01)
        await client.close()
        assert not told

    with Receiver() as receiver:
        receiver.answers.clear()
        asyncio.run(run(receiver))
