"""The server API (D36), as a backend and the users of its app see it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.system.api_client import KEY, Answer, Backend, key_file
from tests.system.harness import ChatClient, Server, StartServer, run_async, wait_until
from tests.system.servers import shared_server, two_users
from tests.system.test_reload import reload_well
from tests.system.test_resize import resize_well

NOBODY: Final = "99999999-9999-4999-8999-999999999999"


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = key_file(tmp_path_factory.mktemp("keys"))
    with shared_server(request.config, tmp_path_factory, workers=2, api_port=0, api_key_file=keys) as server:
        yield server


@pytest.fixture(scope="module")
def backend(server: Server) -> Backend:
    return Backend(server)


def new_user() -> str:
    return str(uuid4())


def is_problem(answer: Answer, status: HTTPStatus, code: str) -> None:
    """Whether an answer is a problem document that says this."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.body["status"], answer.body["code"], answer.body["title"]) == (status, code, status.phrase)
    assert answer.body["detail"]


# -- Users --


@run_async
async def test_d36_a_user_who_was_created_can_be_written_to_before_the_first_hello(
    server: Server, backend: Backend
) -> None:
    """A buyer writes to a seller who has never logged in."""
    seller = new_user()
    await backend.create((seller, "Sam Seller"))
    async with ChatClient(server.url, name="Bea Buyer") as buyer:
        await buyer.hello()
        await buyer.send("OPEN_CHAT", target_user_id=seller, target_display_name="Sam Seller")
        assert (await buyer.receive("CHAT_OPENED"))["target_display_name"] == "Sam Seller"
        await buyer.send("MSG", to=seller, content="is it still there?", message_id="first")
        assert (await buyer.receive("MSG_ACK"))["status"] == "stored"
    facts = (await backend.acall("GET", backend.user(seller))).body
    assert (facts["display_name"], facts["online"], facts["waiting"]) == ("Sam Seller", False, 1)
    async with ChatClient(server.url, seller, "Sam Seller") as phone:
        await phone.hello()
        assert (await phone.receive("MSG"))["content"] == "is it still there?"


@run_async
async def test_d36_many_users_at_once_and_only_all_or_none_are_valid(backend: Backend) -> None:
    users = [(new_user(), f"User {number}") for number in range(1000)]
    body = {"users": [{"user_id": user, "display_name": name} for user, name in users]}
    answer = await backend.acall("POST", "/v1/users", body)
    assert (answer.status, len(answer.body["created"]), answer.body["renamed"]) == (200, 1000, [])
    assert (await backend.acall("POST", "/v1/users", body)).body == {"created": [], "renamed": []}
    renamed = await backend.acall("PUT", backend.user(users[0][0]), {"display_name": "Other"})
    assert renamed.body == {"created": [], "renamed": [users[0][0]]}
    stranger = new_user()
    for wrong in (
        {"user_id": "nobody", "display_name": "Bob Ray"},
        {"user_id": users[1][0], "display_name": ""},
    ):
        both = {"users": [{"user_id": stranger, "display_name": "New User"}, wrong]}
        refused = await backend.acall("POST", "/v1/users", both)
        is_problem(refused, HTTPStatus.UNPROCESSABLE_ENTITY, "VALIDATION")
        assert refused.body["details"]["field"].startswith("users[1].")
    is_problem(await backend.acall("GET", backend.user(stranger)), HTTPStatus.NOT_FOUND, "USER_NOT_FOUND")


@run_async
async def test_d36_ban_unban_list_and_kick(server: Server, backend: Backend) -> None:
    async with ChatClient(server.url, name="Mallory") as mallory:
        await mallory.hello()
        (connection,) = (await backend.acall("GET", backend.user(mallory.user_id, "/connections"))).body[
            "connections"
        ]
        assert connection["address"].startswith(("127.0.0.1:", "[::1]:"))
        kicked = await backend.acall("DELETE", backend.user(mallory.user_id, "/connections"))
        assert kicked.body == {"closed": 1}
        assert await mallory.expect_close() == (1008, "closed by the operator")
    async with ChatClient(server.url, mallory.user_id) as mallory:
        await mallory.hello()
        banned = await backend.acall("PUT", backend.user(mallory.user_id, "/ban"))
        assert banned.body == {"changed": True, "closed": 1}
        assert await mallory.expect_close() == (4003, "banned")
    async with ChatClient(server.url, mallory.user_id) as mallory:
        await mallory.send("HELLO", user_id=mallory.user_id, display_name="Mallory")
        assert (await mallory.receive("ERROR"))["code"] == "UNAUTHORIZED"
    message = {"from": mallory.user_id, "to": new_user(), "content": "hello"}
    is_problem(await backend.acall("POST", "/v1/messages", message), HTTPStatus.CONFLICT, "UNAUTHORIZED")
    unbanned = await backend.acall("DELETE", backend.user(mallory.user_id, "/ban"))
    assert unbanned.body == {"changed": True, "closed": 0}
    async with ChatClient(server.url, mallory.user_id) as mallory:
        await mallory.hello()


@run_async
async def test_d36_a_user_is_deleted_while_the_server_runs(server: Server, backend: Backend) -> None:
    async with ChatClient(server.url, name="Ann") as ann, ChatClient(server.url, name="Bob Ray") as bob:
        await ann.hello()
        await bob.hello(capabilities=["history"])
        await ann.open_chat(bob)
        await ann.message(bob, "forget me")
        deleted = await backend.acall("DELETE", backend.user(ann.user_id))
        assert (deleted.status, deleted.body["state"], deleted.body["closed"]) == (200, "deleted", 1)
        assert (await ann.expect_close())[0] == 4004
        is_problem(
            await backend.acall("DELETE", backend.user(ann.user_id)), HTTPStatus.NOT_FOUND, "USER_NOT_FOUND"
        )
        exported = await backend.acall("GET", backend.user(bob.user_id, "/export"))
        assert "forget me" not in exported.body


@run_async
async def test_d36_an_export_has_everything_of_a_user(server: Server, backend: Backend) -> None:
    ann, bob = two_users(server, "other shard")
    await backend.create((ann, "Ann Lee"), (bob, "Bob Ray"))
    for number in range(3):
        message = {"from": ann, "to": bob, "content": f"text {number}"}
        assert (await backend.acall("POST", "/v1/messages", message)).status == 200
    answer = await backend.acall("GET", backend.user(bob, "/export"))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["type"] for line in lines] == ["user", "chat", "message", "message", "message"]
    nobody = await backend.acall("GET", backend.user(new_user(), "/export"))
    is_problem(nobody, HTTPStatus.NOT_FOUND, "USER_NOT_FOUND")


# -- Messages, chats, presence --


@pytest.mark.parametrize("where", ["same shard", "other shard"])
@run_async
async def test_d36_a_backend_sends_and_reads_as_a_user(server: Server, backend: Backend, where: str) -> None:
    shop, buyer_id = two_users(server, where)
    await backend.create((shop, "The Shop"))
    async with ChatClient(server.url, buyer_id, "Bea Buyer") as buyer:
        await buyer.hello(capabilities=["history"])
        message = {"from": shop, "to": buyer_id, "content": "it is on its way", "message_id": "order-1"}
        for _ in range(2):
            sent = await backend.acall("POST", "/v1/messages", message)
            assert (sent.status, sent.body) == (200, {"message_id": "order-1", "status": "delivered"})
        assert (await buyer.receive("CHAT_OPENED"))["target_display_name"] == "The Shop"
        assert (await buyer.receive("MSG"))["content"] == "it is on its way"
        conflict = await backend.acall("POST", "/v1/messages", {**message, "content": "another text"})
        is_problem(conflict, HTTPStatus.CONFLICT, "VALIDATION")
        await buyer.send("MSG", to=shop, content="thank you", message_id="answer")
        await buyer.receive("MSG_ACK")
        presence = await backend.acall("POST", "/v1/presence", {"user_ids": [shop, buyer_id]})
        assert presence.body == {"online": [buyer_id], "offline": [shop]}
    page = (await backend.acall("GET", backend.user(shop, "/chats"))).body
    assert [(chat["user_id"], chat["display_name"], chat["unread"]) for chat in page["chats"]] == [
        (buyer_id, "Bea Buyer", 1)
    ]
    path = backend.user(shop, f"/chats/{buyer_id}/messages?limit=1")
    newest = (await backend.acall("GET", path)).body
    assert [message["content"] for message in newest["messages"]] == ["thank you"]
    before = (await backend.acall("GET", f"{path}&before={newest['next']}")).body
    assert [message["message_id"] for message in before["messages"]] == ["order-1"]


# -- What goes wrong --


@pytest.mark.attack("the server API without its key")
def test_d36_without_a_key_there_is_the_document_and_nothing_else(server: Server, backend: Backend) -> None:
    nobody, wrong = Backend(server, None), Backend(server, "x" * 40)
    document = nobody.call("GET", "/openapi.json").body
    for method, path in calls_of(document):
        for caller, says in ((nobody, "none came"), (wrong, "wrong")):
            answer = caller.call(method, path.format(user_id=new_user(), peer_id=new_user()), {})
            if caller is wrong and answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                is_problem(answer, HTTPStatus.TOO_MANY_REQUESTS, "RATE_LIMITED")
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
                continue
            is_problem(answer, HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED")
            assert says in answer.body["detail"]
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert wrong.call("GET", backend.user(new_user())).status == HTTPStatus.TOO_MANY_REQUESTS
    assert backend.call("GET", backend.user(new_user())).status == HTTPStatus.NOT_FOUND, (
        "who has the key is not limited"
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b"", 400, "MALFORMED", "not JSON"),
        (b"{", 400, "MALFORMED", "not JSON"),
        (b"\xff", 400, "MALFORMED", "not JSON"),
        (b"[]", 422, "VALIDATION", "Expected `object`, got `array`"),
        (b"{}", 422, "VALIDATION", "missing required field `users`"),
        (b'{"users": []}', 422, "VALIDATION", "Expected `array` of length >= 1, at users"),
        (b'{"users": [7]}', 422, "VALIDATION", "Expected `object`, got `int`, at users[0]"),
        (b'{"users": [{"user_id": null, "display_name": "x"}]}', 422, "VALIDATION", "at users[0].user_id"),
    ],
)
def test_d36_a_body_that_is_wrong_is_told_where(
    backend: Backend, body: bytes, status: int, code: str, says: str
) -> None:
    answer = backend.call("POST", "/v1/users", body)
    is_problem(answer, HTTPStatus(status), code)
    assert says in answer.body["detail"]


def test_d36_too_much_is_refused_and_nothing_of_it_is_done(backend: Backend) -> None:
    users = [{"user_id": new_user(), "display_name": "User"} for _ in range(10_000)]
    is_problem(
        backend.call("POST", "/v1/users", {"users": users[:1001]}),
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "VALIDATION",
    )
    huge = backend.call("POST", "/v1/users", b'{"users": "' + b"x" * 1_100_000 + b'"}')
    is_problem(huge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "REQUEST_ENTITY_TOO_LARGE")
    is_problem(backend.call("GET", backend.user(users[0]["user_id"])), HTTPStatus.NOT_FOUND, "USER_NOT_FOUND")
    twice = backend.call("POST", "/v1/users", {"users": [users[0], users[0]]})
    is_problem(twice, HTTPStatus.UNPROCESSABLE_ENTITY, "VALIDATION")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/users/%00", 422),
        ("PATCH", "/v1/users", 405),
        ("GET", f"/v1/users/{NOBODY}?x=1", 422),
        ("GET", f"/v1/users/{NOBODY}/chats?limit=1000", 404),
        ("GET", f"/v1/users/{NOBODY}/chats/{NOBODY}/messages", 404),
    ],
)
def test_d36_what_is_not_there_is_a_problem_document_too(
    backend: Backend, method: str, path: str, status: int
) -> None:
    answer = backend.call(method, path)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")


@pytest.mark.attack("the server API without its key")
def test_d36_another_host_is_refused(backend: Backend) -> None:
    """A page whose name leads here (DNS rebinding) gets nothing."""
    assert backend.call("GET", "/openapi.json", headers={"Host": "evil.example"}).status == 403


@pytest.mark.slow
@run_async
async def test_d36_a_worker_that_is_away_is_503_and_the_call_may_be_repeated(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(workers=2, api_port=0, api_key_file=key_file(tmp_path))
    backend = Backend(server)
    ann, bob = two_users(server, "other shard")
    await backend.create((ann, "Ann Lee"), (bob, "Bob Ray"))
    message = {"from": bob, "to": ann, "content": "hello", "message_id": "m-1"}
    os.kill(server.child("worker 1"), signal.SIGSTOP)
    try:
        answer = await backend.acall("POST", "/v1/messages", message)
        is_problem(answer, HTTPStatus.SERVICE_UNAVAILABLE, answer.body["code"])
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        with suppress(ProcessLookupError, AssertionError):  # it may have been found to hang, and replaced
            os.kill(server.child("worker 1"), signal.SIGCONT)

    def sent() -> bool:
        return backend.call("POST", "/v1/messages", message).status == 200

    wait_until(sent, "the message to be sent")
    history = backend.call("GET", backend.user(ann, f"/chats/{bob}/messages")).body
    assert [each["message_id"] for each in history["messages"]] == ["m-1"], "once"


@pytest.mark.slow
@run_async
async def test_d36_calls_go_on_through_reload_and_resize(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(workers=2, api_port=0, api_key_file=key_file(tmp_path))
    backend = Backend(server)
    ann, bob = two_users(server, "other shard")
    await backend.create((ann, "Ann Lee"), (bob, "Bob Ray"))
    changes: list[Callable[[], object]] = [
        lambda: reload_well(server),
        lambda: resize_well(server, 3),
        lambda: resize_well(server, 1),
    ]
    for number, change in enumerate(changes):
        message = {"from": ann, "to": bob, "content": f"text {number}", "message_id": f"m-{number}"}
        assert (await backend.acall("POST", "/v1/messages", message)).status == 200
        change()
        repeated = await backend.acall("POST", "/v1/messages", message)
        assert (repeated.status, repeated.body["message_id"]) == (200, f"m-{number}")
    history = backend.call("GET", backend.user(bob, f"/chats/{ann}/messages")).body
    assert [each["message_id"] for each in history["messages"]] == ["m-2", "m-1", "m-0"]


@pytest.mark.slow
def test_d36_keys_are_changed_while_the_server_runs(start_server: StartServer, tmp_path: Path) -> None:
    new = "another-key-of-the-tests-with-40-characters"
    path = key_file(tmp_path)
    server = start_server(workers=1, api_port=0, api_key_file=path)
    old, later = Backend(server), Backend(server, new)
    user = old.user(new_user())
    assert (old.call("GET", user).status, later.call("GET", user).status) == (404, 401)
    key_file(tmp_path, KEY, new)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: later.call("GET", user).status == 404, "the new key to be known")
    assert old.call("GET", user).status == 404
    key_file(tmp_path, new)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: old.call("GET", user).status == 401, "the old key to be unknown")


def test_d36_who_sends_slowly_or_nothing_does_not_keep_others_waiting(backend: Backend) -> None:
    with (
        socket.create_connection(("127.0.0.1", backend.port)) as slow,
        socket.create_connection(("127.0.0.1", backend.port)),
    ):
        slow.sendall(
            f"POST /v1/users HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        assert backend.call("GET", backend.user(new_user())).status == 404


# -- The document --


def calls_of(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Method and path of every call in an OpenAPI document."""
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


def test_d36_the_document_is_openapi_and_has_every_answer(server: Server, backend: Backend) -> None:
    """Each answer of a real server is of the shape that the document says."""
    document = Backend(server, None).call("GET", "/openapi.json").body
    validate(document)
    ann, bob = new_user(), new_user()
    for user in (ann, bob):
        backend.call("PUT", backend.user(user), {"display_name": "Somebody"})
    bodies: dict[str, Any] = {
        "/v1/users": {"users": [{"user_id": ann, "display_name": "Ann Lee"}]},
        "/v1/users/{user_id}": {"display_name": "Ann Lee"},
        "/v1/messages": {"from": ann, "to": bob, "content": "hello"},
        "/v1/presence": {"user_ids": [ann]},
    }
    # Deleted last, and asked about chats only when there is one.
    order = sorted(calls_of(document), key=lambda call: (call[0] == "DELETE", call[0] == "GET", call[1]))
    for method, path in [*order, ("GET", "/v1/users/{user_id}")]:
        operation = document["paths"][path][method.lower()]
        answer = backend.call(
            method, path.format(user_id=ann, peer_id=bob), bodies.get(path) if method != "GET" else None
        )
        described = operation["responses"][str(answer.status)]["content"]
        (schema,) = [
            each["schema"]
            for kind, each in described.items()
            if kind == answer.headers["Content-Type"].partition(";")[0]
        ]
        Draft202012Validator({**schema, "components": document["components"]}).validate(answer.body)
        if method != "DELETE" and (method, path) != ("GET", "/v1/users/{user_id}"):
            assert answer.status == 200, (method, path, answer)


def test_d36_a_page_shows_the_document_without_scripts(server: Server) -> None:
    page = Backend(server, None).call("GET", "/")
    document = Backend(server, None).call("GET", "/openapi.json").body
    assert "<script" not in page.body
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for _, path in calls_of(document):
        assert f"<code>{path}</code>" in page.body
    assert Backend(server, None).call("GET", "/api.css").status == 200


@run_async
async def test_d20_a_full_mailbox_is_told_apart_from_what_may_be_repeated_soon(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(workers=1, api_port=0, api_key_file=key_file(tmp_path), mailbox_max=100)
    backend = Backend(server)
    ann, bob = new_user(), new_user()
    await backend.create((ann, "Ann Lee"), (bob, "Bob Ray"))
    statuses = []
    for number in range(101):
        message = {"from": ann, "to": bob, "content": f"text {number}"}
        answer = await backend.acall("POST", "/v1/messages", message)
        statuses.append(answer.status)
    assert statuses == [200] * 100 + [507]
    is_problem(answer, HTTPStatus.INSUFFICIENT_STORAGE, "MESSAGE_FAILED")
    assert (answer.body["details"]["reason"], "Retry-After" in answer.headers) == ("mailbox_full", False)
