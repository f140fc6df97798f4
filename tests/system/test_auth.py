"""Proof by token against a real server, on the wire (D5): FASTCHAT_AUTH=jwt with a secret, and with a Key Set that changes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.core.token_forge import SECRET, encode, forge, jwk, private_key
from tests.router.command import fastchat
from tests.system.harness import (
    PROJECT,
    Server,
    ServerFailed,
    StartServer,
    user_on_worker,
    wait_until,
)
from tests.system.raw_client import RawClient, text
from tests.system.servers import shared_server
from tests.system.status import status

#: Settings of a server that wants tokens; both secrets are the tests' own.
JWT: Final[dict[str, Any]] = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway": 0, "log_level": "debug"}

#: All tokens that were sent to the shared server: none may ever be seen in what it writes.
SENT: Final[list[str]] = []


def token(user: str, seconds: float = 600.0, key: str = SECRET, **claims: Any) -> str:
    made = forge({"sub": user, "exp": time.time() + seconds} | claims, key)
    SENT.append(made)
    return made


@pytest.fixture(scope="module")
def guarded(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with HS256 that logs everything; at its end, its log has neither a token nor a key."""
    with shared_server(pytestconfig, tmp_path_factory, **JWT) as server:
        yield server
    assert_nothing_leaked(server.output(), SENT, SECRET)


def assert_nothing_leaked(output: str, tokens: list[str], *secrets: str) -> None:
    assert " DEBUG " in output, "it is not the log of debug"
    for each in tokens:
        for part in each.split("."):
            # The first 20 characters of a header are the same in all of them, and short parts are no secret.
            assert len(part) < 30 or part[20:60] not in output, "a part of a token is in the log"
    for secret in secrets:
        assert secret not in output


def refused(client: RawClient, reason: str) -> dict[str, Any]:
    error = client.error("UNAUTHORIZED")
    assert error["details"]["reason"] == reason, error
    assert error["details"]["type"] == "HELLO"
    return error


@pytest.mark.parametrize("worker", [0, 1])
def test_who_has_a_token_chats(guarded: Server, worker: int) -> None:
    """One says it in HELLO, the other one with the upgrade."""
    ann, bob = user_on_worker(worker, 2), user_on_worker(1 - worker, 2)
    headers = {"Authorization": f"Bearer {token(bob)}"}
    with (
        RawClient.upgraded(guarded.port, ann) as alice,
        RawClient.upgraded(guarded.port, bob, **headers) as bobby,
    ):
        alice.hello(token=token(ann))
        bobby.hello()
        alice.say("OPEN_CHAT", target_user_id=bob, target_display_name="Bobby")
        alice.receive("CHAT_OPENED")
        alice.say("MSG", to=bob, content="hi", message_id="m")
        assert bobby.receive("MSG", message_id="m")["from"] == ann


def wrong_tokens(user: str) -> dict[str, tuple[str | None, str]]:
    """What proves nothing, and why."""
    good = token(user)
    head, body, made = good.split(".")
    nobody = encode(json.dumps({"alg": "none"}).encode())
    return {
        "none": (None, "missing"),
        "empty": ("", "missing"),
        "no token": ("let me in", "malformed"),
        "unsigned": (f"{nobody}.{body}.", "malformed"),
        "alg none": (f"{nobody}.{body}.{made}", "algorithm"),
        "another algorithm": (forge({"sub": user}, private_key("ES256"), "ES256"), "algorithm"),
        "another key": (token(user, key=SECRET + "!"), "signature"),
        "changed": (f"{head}.{body[:-2]}{'A' if body[-2] != 'A' else 'B'}{body[-1]}.{made}", "signature"),
        "expired": (token(user, -1.0), "expired"),
        "not yet": (token(user, nbf=time.time() + 60), "early"),
        "for others": (token(user, aud="shop"), "audience"),
        "endless": (forge({"sub": user}), "claims"),
        "another user's": (token(str(uuid4())), "subject"),
        "huge": ("a" * 9000 + ".b.c", "malformed"),
    }


@pytest.mark.attack("forged tokens")
@pytest.mark.parametrize("name", wrong_tokens(str(uuid4())))
def test_what_is_no_proof_lets_nobody_in_but_the_next_try_may(guarded: Server, name: str) -> None:
    user = str(uuid4())
    wrong, reason = wrong_tokens(user)[name]
    with RawClient.upgraded(guarded.port, user) as client:
        client.send(client.hello_bytes() if wrong is None else client.hello_bytes(token=wrong))
        error = refused(client, reason)
        if wrong:
            assert wrong not in json.dumps(error)
        client.say("MSG", to=user, content="hi")
        client.error("UNAUTHORIZED")
        client.hello(token=token(user))


@pytest.mark.attack("forged tokens")
def test_after_three_tries_it_is_over(guarded: Server) -> None:
    with RawClient.upgraded(guarded.port) as client:
        for _ in range(3):
            client.send(client.hello_bytes(token=token(str(uuid4()))))
        for _ in range(3):
            refused(client, "subject")
        code, reason = client.closed()
        assert (code, reason) == (1008, "no valid token in three tries")


@pytest.mark.attack("forged tokens")
def test_an_authorization_that_is_no_bearer_is_not_looked_at(guarded: Server) -> None:
    user = str(uuid4())
    for value in ("Basic eDp5", token(user), "Bearer", f"Digest {token(user)}"):
        with RawClient.upgraded(guarded.port, user, Authorization=value) as client:
            client.send(client.hello_bytes())
            refused(client, "missing")
            client.hello(token=token(user))


@pytest.mark.attack("forged tokens", "wrong types")
def test_a_token_of_the_wrong_type_is_invalid(guarded: Server) -> None:
    with RawClient.upgraded(guarded.port) as client:
        for wrong in (1, True, ["x"], {"a": "b"}):
            client.send(client.hello_bytes(token=wrong))
            assert client.error("VALIDATION")["details"]["field"] == "token"
        client.hello(token=token(client.user_id))


def test_the_end_is_announced_and_comes(guarded: Server) -> None:
    with RawClient.upgraded(guarded.port) as client:
        began = time.monotonic()
        client.hello(token=token(client.user_id, 4.0))
        notice = refused(client, "expires")
        assert 0 <= notice["details"]["expires_in"] <= 3
        assert client.closed() == (1008, "token expired")
        assert time.monotonic() - began > 2.5, "that was too early"


def test_a_new_token_on_the_same_connection_keeps_it(guarded: Server) -> None:
    """Also a fragmented HELLO, which travels with the socket."""
    with RawClient.upgraded(guarded.port) as client, RawClient.upgraded(guarded.port) as other:
        client.hello(token=token(client.user_id, 4.0))
        other.hello(token=token(other.user_id, 4.0))
        refused(client, "expires")
        refused(other, "expires")
        client.send(client.hello_bytes(token=token(str(uuid4()))))
        refused(client, "subject")
        client.hello(token=token(client.user_id, 600.0))
        # The other one's time comes later than this one's would have.
        assert other.closed() == (1008, "token expired")
        client.say("PING")
        client.receive("PONG")


def test_refusals_are_counted_and_neither_key_nor_token_is_shown(guarded: Server) -> None:
    with RawClient.upgraded(guarded.port) as client:
        client.send(client.hello_bytes(token="not a token"))  # noqa: S106
        refused(client, "malformed")

    def counted() -> bool:
        fronts = [each for each in status(guarded)["processes"] if each["kind"] == "front"]
        return any(each["stats"].get('front_tokens_refused_total{reason="malformed"}', 0) for each in fronts)

    wait_until(counted, "the refusal to be counted")
    shown = json.dumps(status(guarded))
    assert SECRET not in shown
    assert "auth" in status(guarded)["settings"]


def test_a_token_for_development(guarded: Server) -> None:
    user = str(uuid4())
    made = fastchat("token", user, "--name", "Ann Lee", "--minutes", "5", jwt_key=SECRET)
    assert (made.returncode, made.stderr) == (0, "")
    with RawClient.upgraded(guarded.port, user) as client:
        client.hello(token=made.stdout.strip())
    for arguments, settings, says in (
        ((user,), {}, "tokens need a key"),
        ((user,), {"jwt_key": "short"}, "has 5 bytes"),
        (("nobody",), {"jwt_key": SECRET}, "UUID v4"),
        ((user, "--jwt-algorithm", "ES256"), {"jwt_key": SECRET}, "not a key in PEM"),
    ):
        failed = fastchat("token", *arguments, **settings)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert says in failed.stderr
        assert SECRET not in failed.stderr


def test_the_key_is_not_shown_by_config(tmp_path: Path) -> None:
    shown = fastchat("config", "show", "--json", auth="jwt", jwt_key=SECRET)
    assert json.loads(shown.stdout)["FASTCHAT_JWT_KEY"] == {"value": "***", "from": "environment"}
    assert SECRET not in shown.stdout
    assert fastchat("config", "check", auth="jwt", jwt_key=SECRET).stdout.strip().endswith("OK")
    short = fastchat("config", "check", auth="jwt", jwt_key="hunter2")
    assert short.returncode == 2
    assert "hunter2" not in short.stdout + short.stderr


# -- Keys that do not stop the start, and those that do --


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"auth": "jwt"}, "tokens need a key"),
        ({"auth": "jwt", "jwt_key": "x" * 31}, "has 31 bytes"),
        ({"auth": "jwt", "jwt_key": SECRET, "jwt_algorithm": "RS256"}, "needs an RSA key"),
        ({"auth": "jwt", "jwt_key_file": "/nowhere/key.pem"}, "can't read /nowhere/key.pem"),
        ({"jwt_key": SECRET}, "set FASTCHAT_AUTH=jwt"),
        ({"auth": "none", "jwt_key": SECRET}, "set FASTCHAT_AUTH=jwt"),
    ],
)
def test_a_key_that_is_no_good_is_told_before_the_start(settings: dict[str, object], says: str) -> None:
    checked = fastchat("config", "check", **settings)
    assert (checked.returncode, checked.stdout) == (2, "")
    assert says in checked.stderr
    assert SECRET not in checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"auth": "jwt", "jwt_key": SECRET, "jwt_algorithm": "RS256"}, "needs an RSA key"),
        ({"auth": "jwt"}, "tokens need a key"),
        ({"auth": "jwt", "jwt_key": "x" * 31}, "has 31 bytes"),
        ({"auth": "jwt", "jwt_key_file": "/nowhere/key.pem"}, "can't read /nowhere/key.pem"),
        ({"jwt_key": SECRET}, "set FASTCHAT_AUTH=jwt"),
        ({"auth": "none", "jwt_key": SECRET}, "set FASTCHAT_AUTH=jwt"),
    ],
)
def test_a_key_that_is_no_good_stops_the_start(
    start_server: StartServer, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ServerFailed) as failed:
        start_server(**settings)
    assert failed.value.exit_code == 2
    assert says in failed.value.output
    assert SECRET not in failed.value.output
    assert "Traceback" not in failed.value.output


@pytest.mark.slow
def test_a_key_set_and_its_rotation(start_server: StartServer, tmp_path: Path) -> None:
    """SIGHUP reads it again: new keys hold, old ones do not, who is connected stays; and a file that is no good changes nothing."""
    old, new = private_key("ES256", 1), private_key("ES256", 2)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(old, kid="old"), jwk(private_key("RS256"), kid="r")]}))
    server = start_server(
        auth="jwt",
        jwt_algorithm="ES256",
        jwt_jwks_file=os.path.relpath(path, PROJECT),
        jwt_audience="chat",
        jwt_issuer="https://id.example",
        log_level="debug",
    )
    sent = []

    def made(user: str, key: Any, kid: str) -> str:
        claims = {"sub": user, "exp": time.time() + 600, "aud": ["chat"], "iss": "https://id.example"}
        sent.append(forge(claims, key, "ES256", kid=kid))
        return sent[-1]

    def reloaded(sentence: str) -> None:
        before = server.output().count(sentence)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.output().count(sentence) > before, f"the log to say: {sentence}")

    def gets_in(key: Any, kid: str) -> bool:
        with RawClient.upgraded(server.port, user_on_worker(0, 2)) as client:
            client.send(client.hello_bytes(token=made(client.user_id, key, kid)))
            client.say("PING")
            client.receive("PONG")
            kinds = [frame.message() for frame in client.inbox]
            return any(kind == "HELLO_ACK" for kind, _ in kinds)

    def accepts(key: Any, kid: str) -> bool:
        try:
            return gets_in(key, kid)
        except AssertionError as error:
            assert "UNAUTHORIZED" in str(error)
            return False

    alice = RawClient.upgraded(server.port, user_on_worker(1, 2))
    with alice:
        alice.hello(token=made(alice.user_id, old, "old"))
        assert not accepts(new, "new")
        assert not accepts(new, "old")
        path.write_text("{")
        reloaded("keeping the current keys")
        assert accepts(old, "old")
        path.write_text(json.dumps({"keys": [jwk(new, kid="new")]}))
        reloaded("keys and secrets are read again")
        wait_until(lambda: accepts(new, "new"), "the new key to hold")
        wait_until(lambda: not accepts(old, "old"), "the old key to hold no more")
        alice.hello(token=made(alice.user_id, new, "new"))
        alice.send(alice.hello_bytes(token=made(alice.user_id, old, "old")))
        refused(alice, "key")
    assert_nothing_leaked(server.output(), sent)


def test_without_tokens_one_is_not_looked_at(server: Server) -> None:
    """A client may send one anyway: unknown fields are ignored."""
    with RawClient.upgraded(server.port, Authorization="Bearer x") as client:
        client.hello(token=17)
        client.send(text("HELLO", user_id=client.user_id, display_name="Another", token="y"))  # noqa: S106
        client.receive("HELLO_ACK")


def test_a_worker_that_dies_takes_no_proof_along(guarded: Server) -> None:
    """Who comes back has to prove it again, to the same rules."""
    user = user_on_worker(1, 2)
    with RawClient.upgraded(guarded.port, user) as client:
        client.hello(token=token(user))
        os.kill(guarded.child("worker 1"), signal.SIGKILL)
        client.until_end()
    with RawClient.upgraded(guarded.port, user) as client:
        client.send(client.hello_bytes())
        refused(client, "missing")
        client.send(client.hello_bytes(token=token(user)))
        client.receive("HELLO_ACK", timeout=20.0)
