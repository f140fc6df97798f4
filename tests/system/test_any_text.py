"""Any text in any field is kept byte for byte, after sanitising: live, after a restart, and in HISTORY; and the database takes no harm.

D1, D10, D13, D14, D16, D25. Much of this tries SQL injection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.any_texts import (
    CONTENTS,
    IDENTIFIERS,
    METACHARACTERS,
    NAMES,
    NOT_IDENTIFIERS,
    NOT_USERS,
    USERS,
)
from tests.system.bystanders import Bystanders
from tests.system.harness import Server
from tests.system.raw_client import TEXT, RawClient, client_frame

pytestmark = pytest.mark.slow

WORKERS: Final = 2
#: How many VALIDATION errors a connection gets at most in here; with 21 in a minute it would be closed (D25).
STRIKES: Final = 15


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where servers keep their data; in the end the database has to be as sound as it was."""
    yield tmp_path
    files = shard_files(tmp_path)
    assert len(files) == WORKERS
    for file in files:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def shard_files(directory: Path) -> list[Path]:
    return sorted((directory / "data").glob("**/*.db"))


def tables(directory: Path) -> list[list[tuple[str, str]]]:
    """All that is defined in the databases."""
    found = []
    for file in shard_files(directory):
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            found.append(database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall())
    return found


@contextmanager
def serve(directory: Path) -> Iterator[Server]:
    """A server, with people on it whom nothing of this concerns."""
    with (
        Server(directory, workers=WORKERS, user_ids="any", history_per_minute=0) as server,
        Bystanders(server),
    ):
        yield server


def come(server: Server, user_id: str, name: str = "Somebody", **hello: Any) -> RawClient:
    """A connection of this user, greeted. It answers no pings, so nothing that it gets counts as acknowledged."""
    client = RawClient.upgraded(server.port, user_id, name)
    client.hello(**hello)
    return client


def open_chat(client: RawClient, user_id: str) -> dict[str, Any]:
    client.say("OPEN_CHAT", target_user_id=user_id, target_display_name="Somebody")
    return client.receive("CHAT_OPENED", target_user_id=user_id)


def history(client: RawClient, peer: str, limit: int = 7) -> list[dict[str, Any]]:
    """The whole conversation, oldest first, a page at a time."""
    found: list[dict[str, Any]] = []
    before = None
    while True:
        client.say("HISTORY", **{"with": peer, "limit": limit, "before": before})
        page = client.receive("HISTORY")
        assert page["with"] == peer
        found += page["messages"]
        before = page["next"]
        if before is None:
            return found[::-1]


def message_of(data: dict[str, Any]) -> dict[str, Any]:
    """A MSG without what only who resumes gets."""
    return {name: data[name] for name in ("from", "to", "content", "message_id", "timestamp")}


@pytest.mark.attack("SQL injection")
def test_contents(directory: Path) -> None:
    """Live, sent again after a restart, and in the HISTORY of both sides before and after it; as escapes and as UTF-8."""
    with serve(directory) as server, ExitStack() as stack:
        before = tables(directory)
        alice = stack.enter_context(come(server, "alice", capabilities=["history"]))
        bob = stack.enter_context(come(server, "bob", capabilities=["history"]))
        open_chat(alice, bob.user_id)
        came = []
        for number, text in enumerate(CONTENTS):
            send = say_in_utf8 if number % 2 else RawClient.say
            send(alice, "MSG", to="bob", content=text.sent, message_id=f"{number}")
            assert alice.receive("MSG_ACK")["message_id"] == f"{number}"
            came.append(bob.receive("MSG"))
        assert [message["content"] for message in came] == [text.kept for text in CONTENTS]
        assert [message["message_id"] for message in came] == [f"{number}" for number in range(len(CONTENTS))]
        for client, peer in ((alice, "bob"), (bob, "alice")):
            assert history(client, peer) == came
        assert tables(directory) == before
    with serve(directory) as server, ExitStack() as stack:
        bob = stack.enter_context(come(server, "bob", capabilities=["history"]))
        assert [bob.receive("MSG") for _ in came] == came
        alice = stack.enter_context(come(server, "alice", capabilities=["history"]))
        for client, peer in ((alice, "bob"), (bob, "alice")):
            assert history(client, peer) == came
        for number, text in enumerate(CONTENTS):
            alice.say("MSG", to="bob", content=text.sent, message_id=f"{number}")
            assert alice.receive("MSG_ACK")["message_id"] == f"{number}", "it is recognised as the same"
        assert "MSG" not in [kind for kind, _ in bob.everything()]
    assert tables(directory) == before


def say_in_utf8(client: RawClient, type_: str, /, **data: Any) -> None:
    """Like `RawClient.say`, but characters stand in the JSON as they are."""
    client.send(client_frame(TEXT, json.dumps({"type": type_, "data": data}, ensure_ascii=False).encode()))


@pytest.mark.attack("lone surrogates")
def test_what_is_no_text(directory: Path) -> None:
    """Half of a surrogate pair can't be written in UTF-8: VALIDATION, and the connection stays."""
    with serve(directory) as server, come(server, "alice") as alice, come(server, "bob") as bob:
        open_chat(alice, bob.user_id)
        for half in (r"\ud83d", r"\ude00", r"\ude00\ud83d", r"a\ud83db"):
            payload = f'{{"type":"MSG","data":{{"to":"bob","content":"{half}"}}}}'
            alice.send(client_frame(TEXT, payload.encode()))
            alice.error("VALIDATION")
        alice.say("MSG", to="bob", content="whole", message_id="1")
        assert bob.receive("MSG")["content"] == "whole"


@pytest.mark.attack("SQL injection")
def test_display_names(directory: Path) -> None:
    """In PRESENCE, in CHAT_OPENED, and in CHAT_OPENED after a restart, when only the database knows them."""
    users = [f"user-{number}" for number in range(len(NAMES))]
    with serve(directory) as server, ExitStack() as stack:
        before = tables(directory)
        alice = stack.enter_context(come(server, "alice"))
        for user_id, name in zip(users, NAMES, strict=True):
            stack.enter_context(come(server, user_id, name.sent))
            assert open_chat(alice, user_id)["target_display_name"] == name.kept
        expected = {user_id: name.kept for user_id, name in zip(users, NAMES, strict=True)}
        expected["alice"] = "Somebody"
        shown: dict[str, str] = {}
        while shown != expected:
            everybody = alice.receive("PRESENCE")["users"]
            shown = {
                user["user_id"]: user["display_name"] for user in everybody if user["user_id"] in expected
            }
    with serve(directory) as server, come(server, "carol") as carol:
        for user_id, name in zip(users, NAMES, strict=True):
            assert open_chat(carol, user_id)["target_display_name"] == name.kept
    assert tables(directory) == before


@pytest.mark.attack("SQL injection")
def test_user_ids(directory: Path) -> None:
    """Each is a user of its own."""
    with serve(directory) as server, come(server, "alice") as alice:
        before = tables(directory)
        for user_id in USERS:
            with come(server, user_id, f"I am {user_id}"[:50]):
                open_chat(alice, user_id)
        for user_id in USERS:
            alice.say("MSG", to=user_id, content=f"for {user_id}", message_id="same")
            assert alice.receive("MSG_ACK") == {"message_id": "same", "status": "stored"}
        strikes = count(1)
        for user_id in NOT_USERS:
            alice.say("MSG", to=user_id, content="hi")
            assert alice.error("VALIDATION")["details"]["field"] == "to"
            assert next(strikes) <= STRIKES
    with serve(directory) as server:
        for user_id in USERS:
            with come(server, user_id, f"I am {user_id}"[:50], capabilities=["history"]) as user:
                message = user.receive("MSG")
                assert (message["to"], message["content"]) == (user_id, f"for {user_id}")
                assert "MSG" not in [kind for kind, _ in user.everything()]
                assert [m["content"] for m in history(user, "alice")] == [f"for {user_id}"]
        with RawClient.upgraded(server.port) as client:
            for user_id in NOT_USERS:
                client.say("HELLO", user_id=user_id, display_name="Somebody")
                assert client.error("VALIDATION")["details"]["field"] == "user_id"
            client.hello()
    assert tables(directory) == before


@pytest.mark.attack("SQL injection", "message_id tricks")
def test_message_ids(directory: Path) -> None:
    """Each is another message: live, and when it is repeated after a restart."""
    with serve(directory) as server, come(server, "alice") as alice, come(server, "bob") as bob:
        before = tables(directory)
        open_chat(alice, "bob")
        for identifier in IDENTIFIERS:
            alice.say("MSG", to="bob", content=f"content of {identifier}", message_id=identifier)
            assert alice.receive("MSG_ACK") == {"message_id": identifier, "status": "delivered"}
            assert bob.receive("MSG")["message_id"] == identifier
        for identifier in NOT_IDENTIFIERS:
            alice.say("MSG", to="bob", content="hi", message_id=identifier)
            assert alice.error("VALIDATION")["details"]["field"] == "message_id"
    with serve(directory) as server, come(server, "alice") as alice:
        for identifier in IDENTIFIERS:
            alice.say("MSG", to="bob", content=f"content of {identifier}", message_id=identifier)
            assert alice.receive("MSG_ACK") == {"message_id": identifier, "status": "stored"}
        with come(server, "bob") as bob:
            came = [bob.receive("MSG") for _ in IDENTIFIERS]
            assert [message["message_id"] for message in came] == list(IDENTIFIERS)
            for identifier in IDENTIFIERS[::2]:
                bob.say("MSG_ACK", message_id=identifier, **{"from": "alice"})
            for identifier in NOT_IDENTIFIERS:
                bob.say("MSG_ACK", message_id=identifier)
                bob.error("VALIDATION")
            bob.everything()
        with come(server, "bob") as bob:
            came = [bob.receive("MSG") for _ in IDENTIFIERS[1::2]]
            assert [message["message_id"] for message in came] == list(IDENTIFIERS[1::2])
            assert "MSG" not in [kind for kind, _ in bob.everything()]
    assert tables(directory) == before


@pytest.mark.attack("SQL injection")
def test_resume_cursors(directory: Path) -> None:
    """Anything that is no position of this mailbox is as good as none: `reset`, and everything that waits comes."""
    with serve(directory) as server, ExitStack() as stack:
        before = tables(directory)
        alice = stack.enter_context(come(server, "alice"))
        bob = stack.enter_context(RawClient.upgraded(server.port, "bob"))
        start = bob.hello(capabilities=["resume"])["cursor"]
        other = stack.enter_context(RawClient.upgraded(server.port, "carol")).hello(capabilities=["resume"])[
            "cursor"
        ]
        open_chat(alice, "bob")
        alice.say("MSG", to="bob", content="hi", message_id="1")
        cursor = bob.receive("MSG")["cursor"]
        epoch = cursor.rpartition(".")[0]
        wrong = [*METACHARACTERS, *(text.sent for text in CONTENTS if len(text.sent) < 1000), "", other]
        wrong += [
            f"{cursor} ",
            f"{cursor}\n",
            f"{cursor}\x00",
            f"\x00{cursor}",
            f"{cursor}' OR '1'='1",
            f"%.{1}",
        ]
        wrong += [
            f"{epoch}.{position}"
            for position in ("-1", "2", "1e0", "0x1", "\u0661", "9" * 15, "9" * 5000, "", "1.1")
        ]
        for text in wrong:
            with RawClient.upgraded(server.port, "bob") as device:
                ack = device.hello(capabilities=["resume"], resume={"cursor": text})
                assert (ack["resumed"], ack["cursor"]) == ("reset", start), text
                assert device.receive("MSG")["content"] == "hi"
        for mistyped in (1, None, True, ["x"], {"cursor": cursor}):
            with RawClient.upgraded(server.port, "bob") as device:
                device.send(device.hello_bytes(capabilities=["resume"], resume={"cursor": mistyped}))
                device.error("VALIDATION")
                device.hello(capabilities=["resume"], resume={"cursor": cursor})
                assert "MSG" not in [kind for kind, _ in device.everything()]
        assert tables(directory) == before


@pytest.mark.attack("SQL injection")
def test_history_cursors(directory: Path) -> None:
    """Anything that no HISTORY has given is VALIDATION; a position that is not there, however large, is one all the same."""
    with serve(directory) as server, come(server, "alice", capabilities=["history"]) as alice:
        before = tables(directory)
        with come(server, "bob"):
            open_chat(alice, "bob")
        for number in range(3):
            alice.say("MSG", to="bob", content="hi", message_id=f"{number}")
            alice.receive("MSG_ACK")
        wrong: list[Any] = [*METACHARACTERS, *(text.sent for text in CONTENTS if len(text.sent) < 1000), ""]
        wrong += [
            "1",
            "1.",
            ".1",
            "-1.1",
            "1.1.1.1",
            "1e0.1",
            "\u0661.\u0661",
            "9" * 16 + ".1",
            "1.1\n",
            "1.1\x00",
            1,
            1.1,
            True,
            [],
        ]
        for start in range(0, len(wrong), STRIKES):
            with come(server, "alice", capabilities=["history"]) as device:
                for text in wrong[start : start + STRIKES]:
                    device.say("HISTORY", **{"with": "bob", "before": text})
                    assert device.error("VALIDATION")["details"]["field"] == "before", text
        for text, found in (("0.0", []), ("9" * 15 + "." + "9" * 15, ["2", "1", "0"]), ("000.002", ["0"])):
            alice.say("HISTORY", **{"with": "bob", "before": text})
            assert [message["message_id"] for message in alice.receive("HISTORY")["messages"]] == found
        for peer in NOT_USERS:
            alice.say("HISTORY", **{"with": peer})
            assert alice.error("VALIDATION")["details"]["field"] == "with"
        assert tables(directory) == before
