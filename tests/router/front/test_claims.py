"""What a token claims besides the user id (D34), in a real front: it is checked before the hand-over, and travels with the socket."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.auth.proof import Proof
from tests.core.token_forge import SECRET, forge
from tests.router.front_process import FakeWorker, FrontProcess, client_frame, message, text, user_on

#: When the tokens of these tests expire.
END = float(int(time.time()) + 3600)


@pytest.fixture(scope="module")
def front() -> Iterator[FrontProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        FrontProcess(Path(name), auth="jwt", jwt_key=SECRET, jwt_leeway=0.0) as front,
    ):
        yield front


def said(user: str, **claims: Any) -> dict[str, Any]:
    """What HELLO says."""
    token = forge({"sub": user, "exp": END} | claims)
    return {"user_id": user, "display_name": "The Boss", "token": token}


@pytest.mark.parametrize(
    ("claims", "proof"),
    [
        ({}, Proof(END)),
        ({"name": " <b>Ann</b>\u202e Lee "}, Proof(END, "Ann Lee")),
        ({"role": "service"}, Proof(END, None, True)),
        ({"name": "\U0001f600" * 50, "role": "service"}, Proof(END, "\U0001f600" * 50, True)),
        ({"role": "admin"}, Proof(END)),
    ],
)
def test_d34_what_the_token_claims_goes_to_the_worker(
    front: FrontProcess, claims: dict[str, Any], proof: Proof
) -> None:
    """Also where HELLO came in fragments, and travels with the socket too."""
    with FakeWorker(front.run_dir, 0) as worker:
        for in_fragments in (False, True):
            user = user_on(0, 1)
            with front.client() as client:
                if in_fragments:
                    whole = message("HELLO", **said(user, **claims))
                    client.send(client_frame(1, whole[:20], final=False) + client_frame(0, whole[20:]))
                else:
                    client.send(text("HELLO", **said(user, **claims)))
                adopted = worker.receive()
                assert (adopted.ticket.user_id, adopted.ticket.proof) == (user, proof)
                assert bool(adopted.ticket.carried) is in_fragments
                adopted.socket.close()


def test_d34_a_bad_name_gets_nobody_in(front: FrontProcess) -> None:
    """The name in HELLO is no way round it; three tries, and nothing reaches a worker until there is a good one."""
    user = user_on(0, 1)
    with FakeWorker(front.run_dir, 0) as worker:
        with front.client() as client:
            for name in ("", 7):
                client.send(text("HELLO", **said(user, name=name)))
                error = client.json()["data"]
                assert (error["code"], error["details"]["reason"]) == ("UNAUTHORIZED", "name")
            client.send(text("HELLO", **said(user, name="Ann Lee")))
            adopted = worker.receive()
            assert adopted.ticket.proof.name == "Ann Lee"
            adopted.socket.close()
        with front.client() as client:
            client.send(text("HELLO", **said(user, name="x" * 51)) * 3)
            for _ in range(3):
                assert client.json()["data"]["details"]["reason"] == "name"
            assert client.closed() == (1008, "no valid token in three tries")
