"""The clients of ``test_any_sequence``: they keep everything that they see, and complain at once about what must never be.

`Saying` is one message, however often it is said; `Sayings` all of them. What is checked here needs only what one client sees and what
the store has; what is checked across clients and at the end stands in the test.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.core.recording_store import Row
from tests.core.world import Device, World

#: The states of a message, as a sender with receipts is told, in order (D11).
STATES = ["accepted", "delivered", "read"]


class Saying:
    """One message of a user's."""

    def __init__(self, sender: str, recipient: str, message_id: str, content: str) -> None:
        self.sender, self.recipient, self.message_id, self.content = sender, recipient, message_id, content
        #: (device, when in the order of all sayings)
        self.said: list[tuple[Watchful, int]] = []
        #: Whether the sender was told that it is safe; whether a device of the recipient acknowledged it, or has read it.
        self.accepted = False
        self.acknowledged = False
        self.read = False
        #: Whether its id was also used for another text: then an answer that comes late may be to that.
        self.contested = False
        #: Whether it was kept from the recipient, who has blocked the sender (D32).
        self.withheld = False
        #: Whether it was removed by retention: then the same id names a new message, and nothing is promised.
        self.purged = False


class Sayings(dict[str, Saying]):
    """All messages by their ids, which are different here for all senders; and what the stores have of them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def rows(self, user: str) -> list[Row]:
        """What is stored for a user, oldest first."""
        record = self._world.store_of(user).records.get(user)
        return [] if record is None else record.rows

    def purged_through(self, user: str) -> int:
        """The last position of a user's mailbox that retention has removed."""
        record = self._world.store_of(user).records.get(user)
        return 0 if record is None else record.purged_through

    def is_stored(self, saying: Saying) -> bool:
        """Whether it survives whatever happens next (D20), or has had its time."""
        saying.withheld = any(row.message_id == saying.message_id for row in self.withheld(saying.recipient))
        return (
            saying.purged
            or saying.withheld
            or any(row.message_id == saying.message_id for row in self.rows(saying.recipient))
        )

    def withheld(self, user: str) -> list[Row]:
        """What is stored and kept from a user, oldest first (D32)."""
        record = self._world.store_of(user).records.get(user)
        return [] if record is None else record.withheld


class Watchful(Device):
    """A device that keeps what it saw, and applies presence as a client would."""

    def __init__(
        self,
        world: World,
        user_id: str,
        sayings: Sayings,
        capabilities: set[str],
        earlier: Watchful | None = None,
    ) -> None:
        super().__init__(world, user_id)
        self.sayings = sayings
        self.capabilities = capabilities
        self.greeted = False
        #: How often its worker had been killed when it came.
        self.epoch = 0
        #: Message ids, in the order in which they were sent; answers to them; messages that came, acknowledged or not.
        self.asked: list[str] = []
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.came: list[dict[str, Any]] = []
        self.carbons: list[str] = []
        self.online: dict[str, str] = {}
        self.typing_shown: dict[str, bool] = {}
        self.histories_asked = 0
        self.lists_asked = 0
        #: peer -> the chat, as CHATS said last.
        self.chats: dict[str, dict[str, Any]] = {}
        #: Messages sent that break a rule, which all must be answered; more than the limit of a minute would end the connection.
        self.broken = 0
        self.nonsense = 0
        #: (message id) -> (what could set a state back, the state it was told last)
        self.states: dict[str, tuple[object, int]] = {}
        #: Its own cursor and position; the connection that it resumes and where that was; where HELLO_ACK said that it begins.
        self.cursor: str | None = None
        self.position: int = 0
        self.earlier = earlier
        self.resumed_from = (earlier.cursor, earlier.position) if earlier is not None else None
        self.began: int | None = None
        self.reset = False

    def greet(self, name: str, settle: bool) -> None:
        """Say HELLO; go on where the earlier connection was."""
        data: dict[str, Any] = {"capabilities": sorted(self.capabilities)} if self.capabilities else {}
        if self.resumed_from is not None:
            data["resume"] = {"cursor": self.resumed_from[0]}
        self.hello(name, settle=settle, **data)

    def received(self) -> list[dict[str, Any]]:
        """All messages that came to this connection and to those that it goes on from, each of them up to where it was resumed."""
        if self.earlier is None or self.began is None:
            return self.came
        return [message for message in self.earlier.received() if message["seq"] <= self.began] + self.came

    def look(self) -> None:
        """Read what has come."""
        for message in self.take():
            kind, data = message["type"], message["data"]
            getattr(self, f"_on_{kind.lower()}")(data, message)

    # -- What has come --

    def _on_hello_ack(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        self.greeted = True
        assert ("cursor" in data) is ("resumed" in data) is ("resume" in self.capabilities)
        assert ("scope" in data) is ("presence_delta" in self.capabilities)
        if "cursor" not in data:
            return
        self.cursor = data["cursor"]
        self.began = self.position = int(data["cursor"].split(".")[1])
        self.reset = data["resumed"] == "reset"
        if self.resumed_from is None:
            assert self.reset
        else:
            purged = self.sayings.purged_through(self.user_id)
            _, asked = self.resumed_from
            expected = ("full", asked) if asked >= purged else ("partial", purged)
            assert (data["resumed"], self.began) == expected

    def _on_msg(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        saying = self.sayings[data["message_id"]]
        assert (data["from"], data["to"]) == (saying.sender, saying.recipient)
        assert data["content"] == saying.content or saying.purged
        assert self.sayings.is_stored(saying), "shown before it was durable"
        if data["from"] == self.user_id:
            assert "carbons" in self.capabilities
            assert "seq" not in data
            assert saying.purged or saying.message_id not in self.carbons
            self.carbons.append(saying.message_id)
            return
        assert data["to"] == self.user_id
        assert not saying.withheld, "shown to one who has blocked the sender"
        self.came.append(data)
        assert ("seq" in data) is ("cursor" in data) is ("resume" in self.capabilities)
        if "seq" in data:
            self._advance(data)

    def _advance(self, data: dict[str, Any]) -> None:
        """A position: the next one, but for what is purged; or, after a reset, for what somebody has acknowledged (D13)."""
        assert data["seq"] > self.position
        if not self.reset:
            skipped = data["seq"] - 1
            assert skipped == self.position or skipped <= self.sayings.purged_through(self.user_id)
        self.cursor, self.position = data["cursor"], data["seq"]

    def _on_msg_ack(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        saying = self.sayings[data["message_id"]]
        saying.accepted = True
        assert self.sayings.is_stored(saying), "acknowledged before it was durable"
        self.answers.append((data["message_id"], message))
        if "receipts" not in self.capabilities:
            assert set(data) == {"message_id", "status"}
            assert data["status"] in ("stored", "delivered")
            return
        assert data["to"] == saying.recipient
        state = STATES.index(data["status"])
        assert state < 1 or saying.acknowledged or saying.purged
        assert state < 2 or saying.read or saying.purged
        # What a store that failed, or a process that was killed, did not keep is set back; and a repeat is answered from memory.
        failures = self.world.store_of(saying.recipient).failures
        now = self.world.shard_of(saying.recipient).generation, failures
        since, before = self.states.get(saying.message_id, (None, 0))
        assert state >= before or since != now or saying.purged or len(saying.said) > 1
        self.states[saying.message_id] = now, state

    def _on_error(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        kind = data["details"].get("type")
        lists = ("READ", "HIDE", "MUTE", "UNMUTE", "BLOCK", "UNBLOCK")
        assert kind in (
            *(None, "HELLO", "OPEN_CHAT", "MSG", "TYPING", "HISTORY", "PING", "NONSENSE", "CHATS"),
            *lists,
        )
        if kind in (None, "NONSENSE"):
            assert data["code"] == "VALIDATION"
            self.broken -= 1
        elif kind == "MSG":
            self.answers.append((data["details"]["message_id"], message))
        elif kind == "HISTORY":
            assert data["code"] in ("CHAT_NOT_OPENED", "MESSAGE_FAILED")
            self.histories_asked -= 1
        elif kind == "CHATS":
            assert data["code"] == "MESSAGE_FAILED"
            self.lists_asked -= 1
        elif kind in lists:
            assert data["code"] in ("CHAT_NOT_OPENED", "MESSAGE_FAILED")

    def _on_chats(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        assert "chats" in self.capabilities
        assert ("delta" in data) is ("next" not in data)
        self.lists_asked -= "next" in data
        for chat in data["chats"]:
            assert ("delta" in data) or "hidden" not in chat
            last = chat["last"]
            if last is not None:
                saying = self.sayings[last["message_id"]]
                assert self.sayings.is_stored(saying), "shown before it was durable"
                assert {saying.sender, saying.recipient} == {self.user_id, chat["user_id"]}
                assert not (saying.withheld and saying.recipient == self.user_id)
            self.chats[chat["user_id"]] = chat

    def _on_history(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        self.histories_asked -= 1
        ids = [one["message_id"] for one in data["messages"]]
        assert all(count == 1 or self.sayings[one].purged for one, count in Counter(ids).items())
        for one in data["messages"]:
            saying = self.sayings[one["message_id"]]
            assert one["content"] == saying.content or saying.purged
            assert {one["from"], one["to"]} == {self.user_id, data["with"]}

    def _on_typing(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        self.typing_shown[data["user_id"]] = data["is_typing"]

    def _on_pong(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        assert set(data) == {"timestamp"}

    def _on_presence(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        assert ("delta" in data) <= ("presence_delta" in self.capabilities)
        assert ("scope" in data) is ("presence_delta" in self.capabilities)
        if not data.get("delta"):
            self.online = {}
        for user in data["users"]:
            if user["online"]:
                self.online[user["user_id"]] = user["display_name"]
            else:
                self.online.pop(user["user_id"], None)

    def _on_chat_opened(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        assert data["target_user_id"] != self.user_id
