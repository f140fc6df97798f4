"""Two users who chat while others attack: nothing that a stranger does may reach them.

A test with ``@pytest.mark.attack(...)`` has such a pair beside it on every server that it meets, from the beginning to the end; the
fixtures in conftest.py see to that.
"""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import Final, Self

from tests.core.token_forge import forge
from tests.system.harness import Server, user_on_worker, wait_until
from tests.system.raw_client import RawClient, upgrade_request

#: Where they are: an address of this machine that no attack comes from, since limits by address are none of their business.
ADDRESS: Final = "127.0.0.99"
#: Seconds that one round trip may take on a machine that is busy with other tests.
NOTICEABLE: Final = 3.0
#: Seconds from one message to the next, and the same where a user may write 60 a minute.
PAUSE: Final = 0.05
PAUSE_WITH_LIMITS: Final = 1.1


class Bystanders:
    """A pair on different workers, where there are several; a context manager, whose end is an AssertionError if they noticed anything.

    Each round is a message, its delivery and both acknowledgements. On a server that wants tokens they have some.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pause = PAUSE_WITH_LIMITS if server.limits else PAUSE
        self._alice = self._client(0)
        try:
            self._bob = self._client(server.workers - 1)
        except BaseException:
            self._alice.socket.close()
            raise
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bystanders")
        self._error: Exception | None = None
        self.rounds = 0
        self.slowest = 0.0

    def __enter__(self) -> Self:
        for client in (self._alice, self._bob):
            client.hello(**self._proof(client.user_id))
        self._alice.say("OPEN_CHAT", target_user_id=self._bob.user_id, target_display_name="Bob")
        self._alice.receive("CHAT_OPENED")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            self._stop.set()
            self._thread.join()
            self._alice.socket.close()
            self._bob.socket.close()

    def check(self) -> None:
        """They still chat, and never had to wait. AssertionError if not."""
        rounds = self.rounds
        wait_until(
            lambda: self._error is not None or self.rounds > rounds, "the bystanders to go on chatting"
        )
        assert self._error is None, f"the bystanders noticed: {self._error!r}"
        assert self.slowest < NOTICEABLE, f"the bystanders waited for {self.slowest:.1f} s"

    def _client(self, worker: int) -> RawClient:
        """Connect; where few may come from one address, the pair before this may still count for a moment."""
        user_id = user_on_worker(worker, self._server.workers)
        clients: list[RawClient] = []

        def is_let_in() -> bool:
            client = RawClient.to(self._server.port, user_id, source=ADDRESS)
            client.send(upgrade_request())
            status, _ = client.response()
            if status == 503:
                client.socket.close()
                return False
            clients.append(client)
            assert status == 101, f"the upgrade was answered with {status}"
            return True

        wait_until(is_let_in, "the bystanders to be let in")
        return clients[0]

    def _proof(self, user_id: str) -> dict[str, str]:
        """What HELLO needs beside the user id."""
        secret = self._server.settings.get("jwt_key")
        if secret is None:
            return {}
        return {"token": forge({"sub": user_id, "exp": time.time() + 3600.0}, str(secret))}

    def _run(self) -> None:
        try:
            for number in map(str, count()):
                began = time.monotonic()
                self._alice.say("MSG", to=self._bob.user_id, content="hi", message_id=number)
                self._bob.receive("MSG", message_id=number)
                self._bob.say("MSG_ACK", message_id=number)
                self._alice.receive("MSG_ACK", message_id=number)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.rounds += 1
                self._alice.inbox.clear()
                self._bob.inbox.clear()
                if self._stop.wait(self._pause):
                    return
        except Exception as error:
            self._error = error
