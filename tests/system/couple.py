"""Two people who chat while something happens to the server's processes; raw clients, which see each byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import RawClient

ALL: Final = ["carbons", "history", "presence_delta", "receipts", "resume"]


@contextmanager
def couple(server: Server) -> Iterator[tuple[RawClient, RawClient]]:
    """Two users who chat, on different workers if there are two; all has been read."""
    with ExitStack() as stack:
        ann, bob = (
            stack.enter_context(
                RawClient.upgraded(server.port, user_on_worker(index % server.workers, server.workers), name)
            )
            for index, name in enumerate(("Ann Lee", "Bob Ray"))
        )
        ann.hello(capabilities=ALL)
        bob.hello()
        ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob Ray")
        ann.receive("CHAT_OPENED")
        bob.receive("CHAT_OPENED")
        chat(ann, bob, "before")
        while not any(user["user_id"] == bob.user_id for user in ann.receive("PRESENCE")["users"]):
            pass
        for client in (ann, bob):
            client.everything()
        yield ann, bob


def chat(ann: RawClient, bob: RawClient, text: str) -> None:
    """A message in each direction, with all that belongs to it; nothing else comes meanwhile but presence."""
    ann.say("MSG", to=bob.user_id, content=text, message_id=f"to-bob-{text}")
    assert bob.receive("MSG")["content"] == text
    bob.say("MSG_ACK", message_id=f"to-bob-{text}")
    assert ann.receive("MSG_ACK", status="accepted")["message_id"] == f"to-bob-{text}"
    assert ann.receive("MSG_ACK", status="delivered")["message_id"] == f"to-bob-{text}"
    bob.say("MSG", to=ann.user_id, content=text, message_id=f"to-ann-{text}")
    assert ann.receive("MSG")["content"] == text
    ann.say("MSG_ACK", message_id=f"to-ann-{text}")
    assert bob.receive("MSG_ACK")["message_id"] == f"to-ann-{text}"
