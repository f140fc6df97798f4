"""What a token claims besides the user id (D34), on the wire: a proven name, and backends with ``role: "service"``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.core.token_forge import SECRET, forge
from tests.router.command import fastchat
from tests.system.harness import Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import RawClient
from tests.system.servers import shared_server
from tests.system.test_reload import reload_well
from tests.system.test_resize import resize_well

SETTINGS: Final[dict[str, Any]] = {
    "auth": "jwt",
    "jwt_key": SECRET,
    "jwt_leeway": 0,
    "service_messages_per_minute": 70,
}


@pytest.fixture(scope="module")
def guarded(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens."""
    with shared_server(pytestconfig, tmp_path_factory, **SETTINGS) as server:
        yield server


def token(user: str, **claims: Any) -> str:
    return forge({"sub": user, "exp": time.time() + 600.0} | claims)


def come(stack: ExitStack, server: Server, worker: int = 0, **claims: Any) -> RawClient:
    """A client whose token claims this; HELLO calls everybody The Boss."""
    user = user_on_worker(worker % server.workers, server.workers)
    client = stack.enter_context(RawClient.upgraded(server.port, user, "The Boss"))
    client.hello(token=token(user, **claims))
    return client


def calls(client: RawClient, user: str, name: str) -> None:
    """Wait until PRESENCE calls a user by this name."""
    while not any(
        entry["display_name"] == name
        for entry in client.receive("PRESENCE")["users"]
        if entry["user_id"] == user
    ):
        pass


@pytest.mark.attack("forged names")
def test_d34_the_name_in_the_token_is_what_others_see(guarded: Server) -> None:
    """Whatever HELLO says, at first and again; a renewed token brings another name, or none."""
    with ExitStack() as stack:
        bob = come(stack, guarded, 1, name="B")
        ann = come(stack, guarded, 0, name="Ann Lee")
        calls(bob, ann.user_id, "Ann Lee")
        ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="B")
        assert ann.receive("CHAT_OPENED")["target_display_name"] == "B"
        assert bob.receive("CHAT_OPENED")["target_display_name"] == "Ann Lee"
        ann.hello()
        ann.hello(token=token(ann.user_id, name="Ann Ray"))
        calls(bob, ann.user_id, "Ann Ray")
        ann.hello(token=token(ann.user_id))
        calls(bob, ann.user_id, "The Boss")


@pytest.mark.attack("forged names")
@pytest.mark.parametrize("name", [None, 7, "", "\u2063", "<script></script>", "x" * 51])
def test_d34_a_bad_name_is_never_replaced_by_that_in_hello(guarded: Server, name: Any) -> None:
    user = str(uuid4())
    with RawClient.upgraded(guarded.port, user, "The Boss") as client:
        client.send(client.hello_bytes(token=token(user, name=name)))
        error = client.error("UNAUTHORIZED")
        assert error["details"]["reason"] == "name"
        client.hello(token=token(user, name="Ann Lee"))
        client.send(client.hello_bytes(token=token(user, name=name)))
        assert client.error("UNAUTHORIZED")["details"]["reason"] == "name"
        client.say("PING")
        client.receive("PONG")


@pytest.mark.parametrize("worker", [0, 1])
def test_d34_a_backend_writes_to_who_has_never_heard_of_it(guarded: Server, worker: int) -> None:
    """Online and offline; CHAT_OPENED comes first, and the recipient can answer. It has a limit of its own."""
    with ExitStack() as stack:
        backend = come(stack, guarded, 0, name="Parcels", role="service")
        bob = come(stack, guarded, worker)
        backend.say("MSG", to=bob.user_id, content="1", message_id="m-1")
        assert bob.receive("CHAT_OPENED")["target_display_name"] == "Parcels"
        assert bob.receive("MSG")["content"] == "1"
        assert backend.receive("CHAT_OPENED")["target_user_id"] == bob.user_id
        assert backend.receive("MSG_ACK", message_id="m-1")["status"] == "delivered"
        bob.say("MSG", to=backend.user_id, content="Thanks.")
        assert backend.receive("MSG")["content"] == "Thanks."
        away = come(stack, guarded, worker + 1)
        away.socket.close()
        wait_until(lambda: _is_stored(backend, away.user_id), "the recipient to be offline")
        again = stack.enter_context(RawClient.upgraded(guarded.port, away.user_id, "Cat Poe"))
        again.hello(token=token(away.user_id))
        assert again.receive("CHAT_OPENED")["target_user_id"] == backend.user_id
        again.receive("MSG")
        for number in range(80):
            backend.say("MSG", to=bob.user_id, content=f"{number}")
        assert backend.error("RATE_LIMITED")["details"]["limit"] == 70


def _is_stored(backend: RawClient, recipient: str) -> bool:
    backend.say("MSG", to=recipient, content="Hi.")
    return bool(backend.receive("MSG_ACK")["status"] == "stored")


@pytest.mark.parametrize("role", [None, "admin", "Service", ["service"]])
def test_d34_other_roles_give_no_rights(guarded: Server, role: Any) -> None:
    with ExitStack() as stack:
        ann, bob = come(stack, guarded, 0, role=role), come(stack, guarded, 1)
        ann.say("MSG", to=bob.user_id, content="Hi.")
        ann.error("CHAT_NOT_OPENED")


def test_d34_tokens_for_development_have_both(guarded: Server) -> None:
    user = str(uuid4())
    made = fastchat("token", user, "--name", "Ann Lee", "--service", jwt_key=SECRET)
    assert (made.returncode, made.stderr) == (0, "")
    with ExitStack() as stack:
        bob = come(stack, guarded)
        ann = stack.enter_context(RawClient.upgraded(guarded.port, user, "The Boss"))
        ann.hello(token=made.stdout.strip())
        ann.say("MSG", to=bob.user_id, content="Hi.")
        assert bob.receive("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    failed = fastchat("token", user, "--name", "x" * 51, jwt_key=SECRET)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "1 to 50 characters" in failed.stderr


def both_hold(backend: RawClient, *others: RawClient) -> None:
    """The name still holds, and who has never heard of the backend gets a message from it."""
    backend.hello()
    for other in others:
        backend.say("MSG", to=other.user_id, content="Hi.")
        assert other.receive("CHAT_OPENED")["target_display_name"] == "Parcels"
        other.receive("MSG")


@pytest.mark.slow
def test_d34_name_and_role_go_on_through_reload_and_resize(start_server: StartServer) -> None:
    """None of them closes a connection, and what its token has proven stays with it."""
    server = start_server(**SETTINGS)
    with ExitStack() as stack:
        backend = come(stack, server, 0, name="Parcels", role="service")
        others = [come(stack, server, number) for number in range(6)]
        both_hold(backend, *others[:2])
        reload_well(server)
        both_hold(backend, *others[2:4])
        resize_well(server, 3, backend, *others)
        both_hold(backend, *others[4:])
        newcomer = come(stack, server)
        both_hold(backend, newcomer)
        backend.hello(token=token(backend.user_id, name="Parcels"))
        last = come(stack, server)
        backend.say("MSG", to=last.user_id, content="Hi.")
        backend.error("CHAT_NOT_OPENED")


@pytest.mark.slow
def test_d34_a_drained_server_takes_no_name_along(start_server: StartServer) -> None:
    """Who comes back brings the token again, and has its name and role from the first message on."""
    server = start_server(**SETTINGS, drain_seconds=1)
    with ExitStack() as stack:
        backend = come(stack, server, 0, name="Parcels", role="service")
        bob = come(stack, server, 1)
        os.kill(server.pid, signal.SIGTERM)
        assert backend.closed(30.0)[0] == bob.closed(30.0)[0] == 1012
        server.wait()
        server.start()
        backend = stack.enter_context(RawClient.upgraded(server.port, backend.user_id, "The Boss"))
        backend.hello(token=token(backend.user_id, name="Parcels", role="service"))
        bob = stack.enter_context(RawClient.upgraded(server.port, bob.user_id))
        bob.hello(token=token(bob.user_id))
        both_hold(backend, bob)
