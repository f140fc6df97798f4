"""100,000 messages wait for one user, as many as may: a slow reader gets all in order, the worker stays small (D12, D13, D20)."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.bulk import SlowReader, quick_text, send_all
from tests.system.harness import Server, user_on_worker, wait_until
from tests.system.raw_client import CLOSE, Frame, RawClient

pytestmark = pytest.mark.slow

#: What four senders may have in the mailbox together: a tenth of it each.
MESSAGES: Final = 100_000
MAILBOX_MAX: Final = 250_000
SENDERS: Final = 4
WORKERS: Final = 2
#: Bytes by which the worker may grow.
GROWTH_MAX: Final = 32 * 1024 * 1024
#: Bytes of one read of the slow reader, and reads until it pauses, and looks at the worker's memory.
PORTION: Final = 64 * 1024
PORTIONS: Final = 8
#: Together with what comes around it, about 60 MB for all messages: far more than the worker may grow by.
FILLER: Final = "x" * 360

_NUMBER: Final = re.compile(rb'"content":"(\d+)/(\d+) ')
_SEQ: Final = re.compile(rb'"seq":(\d+),"cursor":"([^"]+)"')


def content(sender: int, number: int) -> str:
    return f"{sender}/{number} {FILLER}"


class Memory:
    """The memory of a process, from now on."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")
        # The kernel forgets the highest value so far: proc(5), clear_refs.
        (self._directory / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def growth(self) -> int:
        """Bytes by which it has grown at most."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = (self._directory / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class Neighbours:
    """Two users on the worker with the large mailbox, who chat as if nothing was."""

    def __init__(self, server: Server) -> None:
        self._pair = [RawClient.upgraded(server.port, user_on_worker(0, WORKERS)) for _ in range(2)]
        for client in self._pair:
            client.hello()
        self._number = 0
        first, second = self._pair
        first.say("OPEN_CHAT", target_user_id=second.user_id, target_display_name="Somebody")
        first.receive("CHAT_OPENED")

    def chat(self) -> None:
        """A message, there and back again."""
        for sender, recipient in (self._pair, self._pair[::-1]):
            self._number += 1
            sender.say("MSG", to=recipient.user_id, content="hi", message_id=f"{self._number}")
            assert sender.receive("MSG_ACK", message_id=f"{self._number}")["status"] == "delivered"
            assert recipient.receive("MSG")["message_id"] == f"{self._number}"
            recipient.say("MSG_ACK", message_id=f"{self._number}")

    def close(self) -> None:
        """They leave."""
        for client in self._pair:
            client.socket.close()


class Reader:
    """The recipient, slow. The memory of the worker (`pid`) is watched from now on."""

    def __init__(self, server: Server, user_id: str, pid: int) -> None:
        self._server = server
        self._user_id = user_id
        self._memory = Memory(pid)
        #: Some positions -> the cursors that stand for them.
        self.cursors: dict[int, str] = {}

    def read(self, first: int = 1, **hello: Any) -> dict[str, Any]:
        """Get the messages from position `first` on, all of them in order; HELLO_ACK. `hello` is what HELLO says beyond the usual."""
        resumes = "capabilities" in hello
        #: What comes next from each sender; as long as it is 0 and this is not the beginning, that may be anything.
        numbers = [0] * SENDERS
        seq = first - 1
        with (
            closing(Neighbours(self._server)) as neighbours,
            RawClient.upgraded(self._server.port, self._user_id, "Reader") as client,
        ):
            client.send(client.hello_bytes(**hello))
            reader = SlowReader(client, PORTION)
            self._let_it_pile_up(reader)
            ack: dict[str, Any] = {}
            portions = 0
            while seq < MESSAGES:
                for frame in reader.portion():
                    number = _NUMBER.search(frame.payload)
                    if number is None:
                        ack = self._other(frame) or ack
                        continue
                    seq += 1
                    self._check(numbers, number, first == 1)
                    if resumes:
                        position = _SEQ.search(frame.payload)
                        assert position is not None, frame
                        assert int(position[1]) == seq
                        if seq % 10_000 == 0:
                            self.cursors[seq] = position[2].decode()
                portions += 1
                if portions % PORTIONS == 0:
                    neighbours.chat()
        growth = self._memory.growth()
        print(f"the worker has grown by {growth / 2**20:.1f} MiB")
        assert growth < GROWTH_MAX
        if first == 1:
            assert numbers == [MESSAGES // SENDERS] * SENDERS
        return ack

    @staticmethod
    def _check(numbers: list[int], number: re.Match[bytes], from_the_beginning: bool) -> None:
        """The messages of one sender come in the order in which they were sent."""
        sender, place = int(number[1]), int(number[2])
        if from_the_beginning or numbers[sender]:
            assert place == numbers[sender], (
                f"message {place} of sender {sender} came instead of {numbers[sender]}"
            )
        numbers[sender] = place + 1

    @staticmethod
    def _other(frame: Frame) -> dict[str, Any] | None:
        assert frame.opcode != CLOSE, frame.close()
        kind, data = frame.message()
        assert kind in ("HELLO_ACK", "PRESENCE", "CHAT_OPENED"), data
        return data if kind == "HELLO_ACK" else None

    @staticmethod
    def _let_it_pile_up(reader: SlowReader) -> None:
        """Read nothing until nothing more comes: the server waits for us."""
        seen: list[int] = []

        def full() -> bool:
            seen.append(reader.waiting())
            return seen[-1] > 0 and seen[-1:] * 10 == seen[-10:]

        wait_until(full, "the server to have sent as much as can be under way")


def fill(server: Server, recipient: str) -> list[RawClient]:
    """The senders, when each has sent its share and got all MSG_ACKs."""
    senders = [RawClient.upgraded(server.port, user_on_worker(n % WORKERS, WORKERS)) for n in range(SENDERS)]
    for sender in senders:
        sender.hello()
        sender.say("OPEN_CHAT", target_user_id=recipient, target_display_name="Reader")
        sender.receive("CHAT_OPENED")
    share = MESSAGES // SENDERS
    batches = [
        b"".join(
            quick_text("MSG", to=recipient, content=content(index, number), message_id=f"{number}")
            for number in range(share)
        )
        for index in range(SENDERS)
    ]
    for answers in send_all(senders, batches, [share] * SENDERS):
        expected = [
            f'{{"type":"MSG_ACK","data":{{"message_id":"{n}","status":"stored"}}}}'.encode()
            for n in range(share)
        ]
        assert [frame.payload for frame in answers] == expected
    return senders


def refused(sender: RawClient, recipient: str) -> None:
    """One more is not taken; a repeat of one that was is recognised."""
    sender.say("MSG", to=recipient, content="one too many", message_id="one-too-many")
    details = sender.error("MESSAGE_FAILED")["details"]
    assert (details["type"], details["message_id"]) == ("MSG", "one-too-many")
    assert (details["share"], details["limit"]) == ("sender", MESSAGES // SENDERS)
    sender.say("MSG", to=recipient, content=content(0, 17), message_id="17")
    assert sender.receive("MSG_ACK")["message_id"] == "17"


@pytest.mark.timeout(240)
def test_100000_messages_wait_for_a_slow_reader(tmp_path: Path) -> None:
    """Plain, then resuming: from the beginning, and from the middle on."""
    recipient = user_on_worker(0, WORKERS)
    with Server(tmp_path, workers=WORKERS, mailbox_max=MAILBOX_MAX) as server:
        with RawClient.upgraded(server.port, recipient, "Reader") as client:
            client.hello()
        senders = fill(server, recipient)
        refused(senders[0], recipient)
        for sender in senders:
            sender.socket.close()
    with Server(tmp_path, workers=WORKERS, mailbox_max=MAILBOX_MAX) as server:
        worker = server.child("worker 0")
        reader = Reader(server, recipient, worker)
        assert "cursor" not in reader.read()
        ack = reader.read(capabilities=["resume"])
        assert ack["resumed"] == "reset"
        ack = reader.read(70_001, capabilities=["resume"], resume={"cursor": reader.cursors[70_000]})
        assert (ack["resumed"], ack["cursor"]) == ("full", reader.cursors[70_000])
        with RawClient.upgraded(server.port, senders[0].user_id) as sender:
            sender.hello()
            refused(sender, recipient)
            make_room(server, recipient)
            sender.say("MSG", to=recipient, content="one too many", message_id="one-too-many")
            assert sender.receive("MSG_ACK") == {"message_id": "one-too-many", "status": "stored"}
        assert server.child("worker 0") == worker, "it is the same process all the time"


def make_room(server: Server, recipient: str) -> None:
    """The recipient acknowledges a message."""
    with RawClient.upgraded(server.port, recipient, "Reader") as client:
        client.hello(capabilities=["history"])
        first = client.receive("MSG")
        client.say("MSG_ACK", message_id=first["message_id"], **{"from": first["from"]})
        # The store is asked which message that is, and then for this: with the answer, the one before it counts.
        client.say("HISTORY", limit=1, **{"with": first["from"]})
        client.receive("HISTORY", timeout=60.0)
