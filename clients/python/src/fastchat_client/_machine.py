"""The connection: what the client does and when, without a socket, an event loop or a clock; ``_runner`` feeds it and does as it asks.

    start -> connecting -> online -> waiting -> connecting -> ...
                 |           |          |
                 +-----------+----------+-> closed

In: `start`, `opened`, `received`, `lost`, `tick` at the time that `deadline` names, `answered` and `not_answered` after `Outside.ask`,
`renew` and `close`. Out: the calls of `Outside`. All times are seconds of any clock that does not go back. What is said on the connection
is `Conversation`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

from fastchat_client import _backoff, _wire
from fastchat_client._backoff import Backoff, Random
from fastchat_client._codes import (
    CAPABILITIES,
    CLOSED,
    FINAL_CLOSE_CODES,
    RATE_LIMITED,
    REFUSED_FOR_NOW,
    TOKEN_EXPIRED,
    UNAUTHORIZED,
    CloseCode,
)
from fastchat_client._conversation import Conversation
from fastchat_client._tokens import ANSWER_TIMEOUT, no_token
from fastchat_client._wire import decode, encode
from fastchat_client.models import Closed, FastChatError, State, StateChange

#: Seconds between two PINGs, and seconds after one in which something must come.
PING_INTERVAL: Final = 15.0
PONG_TIMEOUT: Final = 5.0
#: Seconds from the beginning of an attempt to HELLO_ACK. A server whose worker is being restarted lets clients wait for 10.
GREETING_TIMEOUT: Final = 15.0
#: Statuses of HTTP below 500 that pass. With all others what answers is no FastChat, or does not want this client.
PASSING: Final = frozenset({408, 425, 429})


class Outside(Protocol):
    """What the machine asks for. None of it may call the machine before it has returned."""

    def open(self) -> None:
        """Begin to connect; then `opened` or `lost` must be called."""

    def write(self, text: str) -> None:
        """Send text on the connection."""

    def close(self, code: int, reason: str) -> None:
        """End the connection in good order, behind what was written; or give up connecting. Nothing of it is reported any more."""

    def abort(self) -> None:
        """End the connection, or the attempt, at once. Nothing of it is reported any more."""

    def ask(self) -> None:
        """Ask for a token; then `answered` or `not_answered` must be called, unless it is asked again or `stop_asking` is called before."""

    def stop_asking(self) -> None:
        """Note that the answer is not wanted any more."""

    def report(self, problem: str) -> None:
        """Tell that it can't be connected: once in each outage, when the first attempt has failed."""

    def emit(self, event: str, payload: object) -> None:
        """Tell the listeners. After those of a `message`, `Conversation.shown` must be called, one message after the other."""


class Machine:
    """One client. Raises FastChatError(VALIDATION) when the identity is no text, or too long.

    `token` is what HELLO says to prove it, None for nothing; with `asks` it is asked for before each HELLO.
    """

    def __init__(
        self,
        outside: Outside,
        user_id: str,
        display_name: str,
        cursor: str | None,
        random: Random,
        token: str | None = None,
        asks: bool = False,
    ) -> None:
        self._outside = outside
        self._random = random
        self._token = token
        self._asks = asks
        self._identity: dict[str, Any] = {
            "user_id": user_id,
            "display_name": display_name,
            "capabilities": list(CAPABILITIES),
        }
        encode("HELLO", self._identity | {"resume": {"cursor": cursor}})
        self.conversation = Conversation(user_id, cursor, random, outside.write, outside.emit)
        self._backoff = Backoff(random)
        self.state: State = "connecting"
        self.closed: Closed | None = None
        #: With `waiting`: when to try again.
        self.retry_at: float | None = None
        self.has_been_online = False
        #: Why it is not online: how the last connection or attempt ended.
        self.problem: str | None = None
        self._is_reported = False
        # -- Of this connection or attempt; infinity is never --
        self._is_open = False
        self._online_since = math.inf
        #: While connecting: when to give up, and when to say HELLO (again).
        self._give_up_at = math.inf
        self._greet_at = math.inf
        #: While online: when to say PING, and when something must have come.
        self._ping_at = math.inf
        self._dead_at = math.inf
        #: When a token is asked for again, and until when there has to be one; how often that has failed in a row while online.
        self._ask_at = math.inf
        self._answer_by = math.inf
        self._renewals = 0

    # -- From the connection --

    def start(self, now: float) -> None:
        """Begin."""
        self._attempt(now)

    def opened(self, now: float) -> None:
        """Note that there is a connection."""
        self._is_open = True
        self._greet()

    def received(self, text: str, now: float) -> None:
        """Take a text message."""
        self._dead_at = math.inf
        try:
            kind, data = decode(text)
            if kind == "ERROR" and self._is_about_token(data):
                self._hear_of_token(_wire.error(data), now)
            elif self.conversation.online and kind != "HELLO_ACK":
                self.conversation.receive(kind, data, now)
            elif kind == "HELLO_ACK":
                self._greeted(data, now)
            elif kind == "ERROR":
                self._not_greeted(_wire.error(data), now)
        except FastChatError as error:
            self._outside.emit("error", error)

    def lost(self, code: int, reason: str, now: float, status: int | None = None) -> None:
        """Note that the connection has ended, or the attempt has failed: 1006 if there is no close code, and perhaps a `status` of HTTP."""
        was_online = self.conversation.online
        online_for = now - self._online_since if was_online else 0.0
        self._forget_connection()
        self.problem = reason or f"the connection was closed with {code}"
        # It can't be a place where the client has been that is wrong, but whatever is there for a while.
        is_wrong = status is not None and status < 500 and status not in PASSING and not self.has_been_online
        if not was_online and not self._is_reported:
            self._is_reported = True
            self._outside.report(self.problem)
        has_expired = code == CloseCode.POLICY_VIOLATION and reason == TOKEN_EXPIRED
        if code in FINAL_CLOSE_CODES and not (has_expired and self._asks):
            self._end(Closed(code, reason, "expired" if has_expired else None))
        elif is_wrong:
            self._end(Closed(code, reason, status=status))
        else:
            self.retry_at = now + self._backoff.next(code, reason, online_for)
            self._change("waiting", Closed(code, reason, status=status))

    # -- Time --

    def deadline(self, now: float) -> float | None:
        """Return when to call `tick`; None if there is nothing to wait for."""
        times = [
            self._give_up_at,
            self._greet_at,
            self._ping_at,
            self._dead_at,
            self._ask_at,
            self._answer_by,
        ]
        if self.retry_at is not None:
            times.append(self.retry_at)
        earliest = min(*times, *self.conversation.deadlines(now))
        return None if earliest == math.inf else earliest

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._give_up_at or now >= self._dead_at:
            if self.state == "online":
                silent = f"no answer to PING within {PONG_TIMEOUT:.0f} s"
            else:
                missing = "HELLO_ACK" if self._is_open else "answer to the handshake"
                silent = f"no {missing} within {GREETING_TIMEOUT:.0f} s"
            self._outside.abort()
            self.lost(CloseCode.ABNORMAL, silent, now)
        elif now >= self._answer_by:
            self._outside.stop_asking()
            self.not_answered(no_token("did not answer in time"), now)
        elif now >= self._greet_at or now >= self._ask_at:
            self._greet_at = self._ask_at = math.inf
            self._prove(now)
        elif self.retry_at is not None and now >= self.retry_at:
            self._attempt(now)
        elif self.conversation.online:
            if now >= self._ping_at:
                self._ping(now)
            self.conversation.tick(now)

    # -- From who is asked for tokens --

    def answered(self, token: str, now: float) -> None:
        """Take a token that has come."""
        self._answer_by = math.inf
        self._token = token
        self._go_on(now)

    def not_answered(self, error: FastChatError, now: float) -> None:
        """Note that no token has come. An attempt has failed by that; a connection goes on, and it is asked again."""
        self._answer_by = math.inf
        self._outside.emit("error", error)
        if self.conversation.online:
            self._ask_at = now + _backoff.again(self._random, self._renewals)
            self._renewals += 1
        else:
            self._drop(error, now)

    # -- From the user of the client --

    def renew(self, token: str | None, asks: bool, now: float) -> None:
        """Go on with another token."""
        self._token, self._asks = token, asks
        if self.conversation.online:
            self._prove(now)

    def retry(self, now: float) -> None:
        """Do not wait any longer before the next attempt: the network is back, perhaps."""
        if self.state == "waiting":
            self._attempt(now)

    def close(self, now: float) -> None:
        """End it for good."""
        if self.state != "closed":
            self.conversation.finish(now)
            self._outside.close(CloseCode.NORMAL, "")
            self._forget_connection()
            self._end(Closed(CloseCode.NORMAL, "closed by the client"))

    # -- Inside --

    def _attempt(self, now: float) -> None:
        self.retry_at = None
        self._change("connecting")
        self._prove(now)

    def _prove(self, now: float) -> None:
        """Go on when there is the token that the next HELLO is to say; at once, if nobody is to be asked for one."""
        self._outside.stop_asking()
        self._ask_at = self._answer_by = math.inf
        if self._asks:
            self._give_up_at = math.inf
            self._answer_by = now + ANSWER_TIMEOUT
            self._outside.ask()
        else:
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Connect, or say HELLO on the connection that is there: the token is there."""
        self._renewals = 0
        if not self.conversation.online:
            self._give_up_at = now + GREETING_TIMEOUT
        if self._is_open:
            self._greet()
        else:
            self._outside.open()

    def _greet(self) -> None:
        data = dict(self._identity)
        if self._token is not None:
            data["token"] = self._token
        cursor = self.conversation.inbox.cursor
        # While online it only brings a new token: nothing is to come again.
        if cursor is not None and not self.conversation.online:
            data["resume"] = {"cursor": cursor}
        self._outside.write(encode("HELLO", data))

    def _greeted(self, data: dict[str, Any], now: float) -> None:
        if self.conversation.online:
            return
        resumed = self.conversation.greeted(data)
        self._give_up_at = self._greet_at = math.inf
        self._online_since = now
        self._ping_at = now + PING_INTERVAL
        self.state = "online"
        self._is_reported = False
        self._outside.emit("state", StateChange("online", resumed=resumed))
        again, self.has_been_online = self.has_been_online, True
        self.conversation.begin(again, now)

    def _not_greeted(self, error: FastChatError, now: float) -> None:
        """Note that the server did not accept HELLO."""
        wait = error.details.get("retry_after")
        said = error.details.get("reason")
        reason = said if error.code == UNAUTHORIZED and isinstance(said, str) else None
        if error.code == RATE_LIMITED and isinstance(wait, (int, float)):
            self._greet_at = now + wait
            if not self.conversation.online:
                self._give_up_at = self._greet_at + GREETING_TIMEOUT
        elif self._asks and reason in REFUSED_FOR_NOW:
            self._outside.emit("error", error)
            self._drop(error, now)
        else:
            self._outside.close(CloseCode.NORMAL, "")
            self._forget_connection()
            self._end(Closed(CloseCode.POLICY_VIOLATION, str(error), reason))

    def _drop(self, error: FastChatError, now: float) -> None:
        """Drop the connection: the attempt has failed, or it is of no use any more."""
        self._outside.abort()
        self.lost(CloseCode.ABNORMAL, error.message, now)

    def _is_about_token(self, data: dict[str, Any]) -> bool:
        """Return whether an ERROR that is no answer to the first HELLO of a connection is about the token."""
        details = data.get("details")
        if (
            (self._token is None and not self._asks)
            or not isinstance(details, dict)
            or details.get("type") != "HELLO"
        ):
            return False
        return self.conversation.online or _announces_end(data.get("code"), details)

    def _hear_of_token(self, error: FastChatError, now: float) -> None:
        """Get a new token: the old one expires soon, or HELLO with a new one was refused."""
        if not _announces_end(error.code, error.details):
            self._not_greeted(error, now)
        elif not self._asks:
            self._outside.emit("error", error)
        elif self.conversation.online and self._answer_by == math.inf:
            self._prove(now)

    def _ping(self, now: float) -> None:
        self._ping_at = now + PING_INTERVAL
        self._dead_at = now + PONG_TIMEOUT
        self.conversation.pinged()
        self._outside.write(encode("PING", {}))

    def _forget_connection(self) -> None:
        self._online_since = self._give_up_at = self._greet_at = self._ping_at = self._dead_at = math.inf
        self._ask_at = self._answer_by = math.inf
        self._is_open = False
        self._outside.stop_asking()
        if self.conversation.online:
            self.conversation.lost()

    def _end(self, closed: Closed) -> None:
        self.closed = closed
        self.retry_at = None
        self._change("closed")
        self.conversation.end(closed_error(closed))

    def _change(self, state: State, lost: Closed | None = None) -> None:
        self.state = state
        self._outside.emit("state", StateChange(state, self.retry_at, self.closed, lost))


def _announces_end(code: Any, details: Mapping[str, Any]) -> bool:
    """Return whether an ERROR says that the token expires soon."""
    return code == UNAUTHORIZED and type(details.get("expires_in")) in (int, float)


def closed_error(closed: Closed) -> FastChatError:
    """Return what everybody gets who waits for something from a client that is closed."""
    return FastChatError(CLOSED, f"the client is closed: {closed.code} {closed.reason}")
