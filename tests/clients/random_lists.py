"""Scenarios made by chance, for the list of chats: a server as it should be, whose client loses connections at bad moments.

What the client shows at the end, and each time when all that the server has to say has come, is what the server has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

Step = dict[str, Any]

CAPABILITIES: Final = ["receipts", "resume", "history", "carbons", "presence_delta", "chats", "block"]
PEERS: Final = [f"00000000-0000-4000-8000-{number:012}" for number in range(8)]
STEPS: Final = 60


@dataclass
class _Chat:
    """One chat as the server has it."""

    active: str
    last: Step | None = None
    #: Ids of messages that are not read, and of those that have come to the client over a connection.
    unread: list[str] = field(default_factory=list)
    came: list[str] = field(default_factory=list)
    flags: Step = field(default_factory=lambda: {"blocked": False, "muted": False, "online": False})
    hidden: bool = False


class Story:
    """Makes one scenario: `scenario()`. The same seed makes the same one."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._name = f"chance {seed}"
        self._limit = self._random.randint(1, 4)
        self._steps: list[Step] = [{"client": "connect"}]
        self._chats: dict[str, _Chat] = {}
        self._clock = 0
        self._seq = 0
        #: Chats of which a change is still to be told, and messages that wait for a connection.
        self._untold: set[str] = set()
        self._waiting: list[Step] = []
        self._online = True
        #: Chats that the client knows, perhaps as hidden: it asks for those in which it writes and that it does not know.
        self._known: set[str] = set()

    def scenario(self) -> Step:
        for peer in PEERS[:5]:
            self._chats[peer] = _Chat(self._tick())
        self._online = False
        for _ in range(4):
            self._come()
        self._online = True
        self._waiting.clear()
        self._untold.clear()
        for chat in self._chats.values():
            chat.came.clear()  # not to this client
        self._greet()
        self._list()
        moves = [
            self._come,
            self._come,
            self._tell,
            self._elsewhere,
            self._elsewhere,
            self._write,
            self._read,
            self._command,
            self._open,
            self._presence,
            self._lose,
        ]
        for _ in range(STEPS):
            self._random.choice(moves)()
            if self._random.random() < 0.1:
                self._steps.append({"time": self._random.choice([0.3, 1.5, 20])})
            if self._random.random() < 0.3:
                self._tell()
                self._check()
        self._lose()
        self._tell()
        self._check()
        return {"name": self._name, "about": "Made by chance.", "steps": self._steps}

    # -- What happens --

    def _come(self) -> None:
        """Somebody writes, perhaps for the first time."""
        peer = self._random.choice(PEERS[:7])
        chat = self._chats.setdefault(peer, _Chat(""))
        if chat.flags["blocked"]:
            return
        self._seq += 1
        message_id = f"b{self._seq}"
        self._wrote(peer, peer, message_id)
        chat.unread.append(message_id)
        chat.came.append(message_id)
        self._message(peer, "@me", message_id, seq=self._seq, cursor=f"e.{self._seq}")
        self._untold.add(peer)

    def _elsewhere(self) -> None:
        """Another device of the user does something."""
        peer, chat = self._any()
        match self._random.choice(["write", "read", "hide", "mute", "block"]):
            case "write":
                message_id = f"o{self._clock}"
                self._wrote(peer, "@me", message_id)
                self._message("@me", peer, message_id)
            case "read":
                del chat.unread[: self._random.randint(0, len(chat.unread))]
            case "hide":
                chat.hidden = True
            case "mute":
                chat.flags["muted"] = not chat.flags["muted"]
            case "block":
                chat.flags["blocked"] = not chat.flags["blocked"]
        self._untold.add(peer)

    def _tell(self) -> None:
        """The server tells what has changed."""
        if self._untold:
            self._send("CHATS", chats=[self._entry(peer) for peer in sorted(self._untold)], delta=True)
            self._known |= self._untold
            self._untold.clear()

    def _write(self) -> None:
        peer, chat = self._any()
        if chat.flags["blocked"]:
            return
        message_id = f"m{self._clock}"
        self._steps += [
            {"client": "send", "args": [peer, "Hi", {"messageId": message_id}], "as": message_id},
            {"server": "expect", "type": "MSG", "data": {"message_id": message_id}},
        ]
        # What is to be told of this chat is of before.
        if peer in self._untold:
            self._tell()
        self._wrote(peer, "@me", message_id)
        for status in ("accepted", "read"):
            self._send("MSG_ACK", message_id=message_id, status=status, to=peer)
        if peer not in self._known:
            self._page(None)

    def _read(self) -> None:
        """The user reads some of what has come, at most a second before the server is told."""
        peer, chat = self._any()
        known = [message_id for message_id in chat.unread if message_id in chat.came[-50:]]
        if not known:
            return
        self._tell()
        message_id = self._random.choice(known)
        chat.unread = chat.unread[chat.unread.index(message_id) + 1 :]
        self._steps += [{"client": "markRead", "args": [message_id, peer]}]
        if self._random.random() < 0.5:
            self._steps.append({"time": 1.1})

    def _command(self) -> None:
        peer, chat = self._any()
        kind, change = self._random.choice(
            [
                ("hide", {}),
                ("mute", {"muted": True}),
                ("unmute", {"muted": False}),
                ("block", {"blocked": True}),
                ("unblock", {"blocked": False}),
            ]
        )
        name = f"{kind}-{self._tick()}"
        expected: Step = {"server": "expect", "type": kind.upper(), "data": {"user_id": peer}}
        self._tell()
        self._steps += [{"client": kind, "args": [peer], "as": name}, expected]
        if self._random.random() < 0.4:
            if self._random.random() < 0.5:
                chat.flags |= change
            self._lose()
            self._steps.append(expected)
        chat.flags |= change
        chat.hidden = chat.hidden or kind == "hide"
        self._untold.add(peer)
        self._tell()
        self._steps.append({"promise": name, "is": "resolved", "value": {"userId": peer}})

    def _open(self) -> None:
        """The user opens the one chat that nobody else opens; nothing has been written in it."""
        peer = PEERS[7]
        if peer in self._chats:
            return
        self._chats[peer] = _Chat(self._tick())
        opened = {"chat_id": peer, "participants": ["@me", peer]}
        opened |= {"target_user_id": peer, "target_display_name": peer[-5:]}
        self._steps.append({"client": "openChat", "args": [peer, "Somebody"], "as": "opened"})
        self._send("CHAT_OPENED", **opened)
        self._page(None)

    def _presence(self) -> None:
        peer, chat = self._any()
        chat.flags["online"] = not chat.flags["online"]
        here = {"user_id": peer, "display_name": "Somebody", "online": chat.flags["online"]}
        self._send("PRESENCE", users=[here], delta=True, scope="contacts")

    def _lose(self) -> None:
        """The connection is lost, things happen, and the client is back."""
        self._steps.append({"server": "drop"})
        self._online = False
        for _ in range(self._random.randint(0, 4)):
            self._random.choice([self._come, self._elsewhere])()
        self._online = True
        self._untold.clear()
        self._steps.append({"attempt": [0, 60]})
        self._greet()
        here = [peer for peer, chat in self._chats.items() if chat.flags["online"]]
        users = [{"user_id": peer, "display_name": "Somebody", "online": True} for peer in here]
        self._send("PRESENCE", users=users, scope="contacts")
        late = self._random.random() < 0.5
        if late:
            self._pages(None)
        self._steps += self._waiting
        self._waiting.clear()
        if not late:
            self._pages(None)
        self._known = set(self._ordered())

    # -- Inside --

    def _greet(self) -> None:
        ack = {"capabilities": CAPABILITIES, "scope": "contacts"}
        self._steps.append({"server": "greet", "ack": ack})

    def _list(self) -> None:
        """The program asks for the whole list."""
        before: str | None = None
        while True:
            page = {"limit": self._limit} if before is None else {"limit": self._limit, "before": before}
            self._steps.append({"client": "listChats", "args": [page]})
            before = self._page(before)
            if before is None:
                return

    def _pages(self, before: str | None) -> None:
        """The client asks for all of it again."""
        while (before := self._page(before)) is not None:
            pass

    def _page(self, before: str | None) -> str | None:
        self._steps.append(
            {"server": "expect", "type": "CHATS", "data": {"before": before} if before else {}}
        )
        listed = [peer for peer in self._ordered() if before is None or self._rank(peer) < before]
        page, rest = listed[: self._limit], listed[self._limit :]
        following = self._rank(page[-1]) if rest else None
        self._send("CHATS", chats=[self._entry(peer) for peer in page], next=following)
        self._known |= set(page)
        return following

    def _check(self) -> None:
        wanted = []
        for peer in self._ordered():
            chat = self._chats[peer]
            last = chat.last and {"from": chat.last["from"], "messageId": chat.last["message_id"]}
            wanted.append({"userId": peer, "last": last, "unread": len(chat.unread)} | chat.flags)
        self._steps += [{"listed": [entry["userId"] for entry in wanted]}, {"chatList": wanted}]

    def _ordered(self) -> list[str]:
        return sorted(
            (peer for peer, chat in self._chats.items() if not chat.hidden), key=self._rank, reverse=True
        )

    def _rank(self, peer: str) -> str:
        return f"{self._chats[peer].active}/{peer}"

    def _any(self) -> tuple[str, _Chat]:
        return self._random.choice(list(self._chats.items()))

    def _tick(self) -> str:
        self._clock += 1
        return self._now

    @property
    def _now(self) -> str:
        return f"2024-01-02T{self._clock // 60:02}:{self._clock % 60:02}:00.000Z"

    def _wrote(self, peer: str, sender: str, message_id: str) -> None:
        chat = self._chats[peer]
        chat.active = self._tick()
        chat.last = {"from": sender, "content": "Hi", "timestamp": chat.active, "message_id": message_id}
        chat.hidden = False

    def _message(self, sender: str, to: str, message_id: str, **more: Any) -> None:
        data = {"from": sender, "to": to, "content": "Hi", "message_id": message_id}
        data |= {"timestamp": self._now, **more}
        self._send("MSG", **data)

    def _entry(self, peer: str) -> Step:
        chat = self._chats[peer]
        entry: Step = {"user_id": peer, "display_name": peer[-5:], "chat_id": peer, "last": chat.last}
        entry |= {"unread": len(chat.unread), "read": 0, **chat.flags}
        return entry | ({"hidden": True} if chat.hidden else {})

    def _send(self, kind: str, **data: Any) -> None:
        step = {"server": "send", "type": kind, "data": data}
        (self._steps if self._online else self._waiting).append(step)
