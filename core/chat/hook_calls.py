"""The hook (D33): an operator's web server is told that a message waits for somebody who is away.

    a message is stored for a user without a connection  -\
    the last connection goes, and messages wait           +-> 5 s without a connection -> a row for the chat, due at once
    a new process looks through all users                -/

    row due -> read from the store -> how many messages wait, and which is the first -> the hook -> told, or due again later

There is one row for each chat (`User.hook_calls`). It stays when the hook has been told, or when it was given up, so that there is no
second call; it goes when the user is back, or nothing waits any more. All that must not be forgotten is in the rows, and they are in the
store. Memory has those only that are next. Users who left, and messages that came, in the seconds before a process ended are found by the
next one, which looks through all users once.

A call may reach the hook more than once, with the same id: when its answer is lost, or the process ends before the answer is stored.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from core.chat.chat import Chat, HookCall, chat_id
from core.chat.ports import HookOutcome, WaitingCall
from core.events import fields
from core.measures import series
from core.wire import codec

if TYPE_CHECKING:
    from core.chat.ports import Chance, Clock, Hook
    from core.chat.store import Covered, Found, Store
    from core.chat.user import Message, User
    from core.chat.users import Users
    from core.process.settings import Settings

_log = logging.getLogger("fastchat.core")

#: Seconds without a connection after which somebody is away.
AWAY_AFTER: Final = 5.0
#: Calls on their way at once.
CALLS_MAX: Final = 8
#: Calls that are read from the store at once, and that wait in memory.
_READY_MAX: Final = 64
#: Users who are looked at in one tick, and of whom the store is asked at once.
_LEFT_MAX: Final = 500
_LOOKS_MAX: Final = 64
#: Seconds between two looks for calls that are due, and between two counts of them.
_POLL: Final = 1.0
_COUNT: Final = 10.0
#: Milliseconds until a call that failed is repeated: as long as it has been due, but between these two; and after which it is given up.
_BACKOFF_MIN: Final = 5_000
_BACKOFF_MAX: Final = 3_600_000
GIVE_UP_AFTER: Final = 24 * 3_600_000


class _Attempt:
    """A call while it is put together."""

    __slots__ = ("call", "chat", "count", "first", "user")

    def __init__(self, user: User, chat: Chat, call: HookCall) -> None:
        self.user = user
        self.chat = chat
        self.call = call
        #: The first message that waits, by position and id; and how many there are.
        self.first: tuple[int, str] | None = None
        self.count = 0


class HookCalls:
    """What the hook is told of the users of one shard. Does nothing without a hook but forget what a server with one has left."""

    __slots__ = (
        *("_chance", "_clock", "_content", "_counting", "_hook", "_left", "_looking", "_next_count"),
        *("_next_poll", "_oldest", "_polling", "_ready", "_scan_after", "_scanning", "_sending"),
        *("_since", "_store", "_unsaved", "_users", "_waiting", "counters", "paused"),
    )

    def __init__(
        self, settings: Settings, clock: Clock, chance: Chance, users: Users, store: Store, hook: Hook | None
    ) -> None:
        self._content = bool(settings.hook_content)
        self._clock = clock
        self._chance = chance
        self._users = users
        self._store = store
        self._hook = hook
        #: When this process began to wait for users to be back, on the monotonic clock.
        self._since: float | None = None
        #: Users who may be away -> when to look at them; about in this order.
        self._left: dict[str, float] = {}
        self._looking = 0
        #: (user, peer) of calls that are due, next first; and of those on their way, to the hook or from the store.
        self._ready: deque[tuple[str, str]] = deque()
        self._sending: set[tuple[str, str]] = set()
        self._next_poll = self._next_count = 0.0
        self._polling = self._counting = False
        #: Where the next look through all users begins, None when there is nobody left; and whether one is under way.
        self._scan_after: int | None = 0
        self._scanning = False
        #: Rows that could not be saved; their users are pinned.
        self._unsaved: list[tuple[User, str]] = []
        #: How many calls were pending when they were counted last, and since when the first of them.
        self._waiting = self._oldest = 0
        #: Whether no call is begun, since this process is about to give its place to another one.
        self.paused = False
        self.counters: defaultdict[str, int] = defaultdict(int)
        # From 0 on, as in ``core.chat.shard``.
        self.counters["hook_given_up_total"] = 0
        for outcome in HookOutcome:
            self.counters[series("hook_calls_total", outcome=outcome)] = 0

    @property
    def is_on(self) -> bool:
        """Whether there is a hook."""
        return self._hook is not None

    # -- What happens to users --

    def waits(self, user: User, chat: Chat, now: float) -> None:
        """Note that a message was stored for a user without a connection."""
        if self._hook is None or user.user_id in self._left or not self._is_new(user, chat):
            return
        due = (now if self._since is None else self._since) + AWAY_AFTER
        if due <= now:
            self._add(user, chat.peer)
            self._begin(now)
        else:
            self._left[user.user_id] = due

    def left(self, user: User, now: float) -> None:
        """Note that the last connection of a user has ended."""
        if self._hook is not None:
            self._left.pop(user.user_id, None)
            self._left[user.user_id] = now + AWAY_AFTER

    def back(self, user: User) -> None:
        """Note that a user has a connection again, of whose chats there are calls."""
        calls, user.hook_calls = user.hook_calls, None
        for peer in calls or ():
            self._save(user, peer)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still for so long, in which nobody could come back."""
        self._since = now
        self._left = {user_id: due + seconds for user_id, due in self._left.items()}

    def _is_new(self, user: User, chat: Chat) -> bool:
        """Return whether the hook has to be told of a message that waits in this chat, and no call knows of it."""
        known = user.hook_calls is not None and chat.peer in user.hook_calls
        return not (known or chat.muted or user.is_blocked(chat.peer))

    # -- Time --

    def tick(self, now: float) -> None:
        """Do what is due; called several times a second."""
        if self._unsaved:
            unsaved, self._unsaved = self._unsaved, []
            for user, peer in unsaved:
                user.pins -= 1
                self._save(user, peer)
        if self._hook is None or self.paused:
            return
        if self._since is None:
            self._since = now
        self._look_at_left(now)
        if now >= self._since + AWAY_AFTER:
            self._scan()
        if now >= self._next_poll and not (self._polling or self._ready):
            self._polling = True
            self._store.hook_calls_due(self._milliseconds(), _READY_MAX, self._polled)
        if now >= self._next_count and not self._counting:
            self._counting = True
            self._next_count = now + _COUNT
            self._store.hook_calls_pending(self._counted)
        self._begin(now)

    def _polled(self, found: list[tuple[str, str]], failure: str | None, now: float) -> None:
        self._polling = False
        # With a full answer there are more.
        self._next_poll = now if len(found) == _READY_MAX else now + _POLL
        self._ready.extend(found)
        self._begin(now)

    def _counted(self, pending: tuple[int, int], failure: str | None, now: float) -> None:
        self._counting = False
        if failure is None:
            self._waiting, self._oldest = pending

    def stats(self) -> dict[str, Any]:
        """Return its part of what the worker reports."""
        oldest = max(0, self._milliseconds() - self._oldest) / 1000 if self._oldest else 0.0
        return {**self.counters, "hook_waiting": self._waiting, "hook_oldest_seconds": oldest}

    # -- Who is away, and for whom something waits --

    def _scan(self) -> None:
        """Look through some more users for what no process has noticed, one look at a time."""
        if self._scan_after is not None and not (self._scanning or self._looking):
            self._scanning = True
            self._store.untold(self._scan_after, self._scanned)

    def _scanned(self, found: tuple[int, list[str]], failure: str | None, now: float) -> None:
        self._scanning = False
        if failure is None:
            self._scan_after = found[0] or None
            for user_id in found[1]:
                self._left.setdefault(user_id, now)

    def _look_at_left(self, now: float) -> None:
        for user_id, due in list(islice(self._left.items(), _LEFT_MAX)):
            if due > now or self._looking >= _LOOKS_MAX:
                break
            del self._left[user_id]
            self._looking += 1
            self._find(user_id, partial(self._look, user_id), now)
        if not self._left:
            self._left.clear()  # the table that a crowd needed

    def _look(self, user_id: str, user: User | None, failure: str | None, now: float) -> None:
        if user is not None and not user.sessions and user.mailbox.waiting:
            self._store.senders(user, user.mailbox.acknowledged_through, partial(self._looked, user))
            return
        if failure is not None:
            self._left[user_id] = now + AWAY_AFTER
        self._looking -= 1

    def _looked(self, user: User, found: list[tuple[int, Chat]], failure: str | None, now: float) -> None:
        mailbox = user.mailbox
        if failure is not None:
            self._left[user.user_id] = now + AWAY_AFTER
        elif not user.sessions:
            for seq, chat in found:
                if not mailbox.is_acknowledged(seq) and self._is_new(user, chat):
                    self._add(user, chat.peer)
            self._begin(now)
            if found and mailbox.next_unacknowledged(found[-1][0]) is not None:
                self._store.senders(user, found[-1][0], partial(self._looked, user))
                return
        self._looking -= 1

    def _find(self, user_id: str, then: Found[User | None], now: float) -> None:
        """Call `then` with a user, whom memory is not to keep for long if it has to be loaded for this."""
        is_known = user_id in self._users

        def found(user: User | None, failure: str | None, now: float, /) -> None:
            if user is not None and not is_known:
                self._users.idle.note_briefly(user, now)
            then(user, failure, now)

        self._users.find(user_id, found, now)

    # -- One call --

    def _begin(self, now: float) -> None:
        while self._ready and len(self._sending) < CALLS_MAX and not self.paused:
            key = self._ready.popleft()
            if key not in self._sending:
                self._sending.add(key)
                self._find(key[0], partial(self._prepare, key), now)

    def _prepare(self, key: tuple[str, str], user: User | None, failure: str | None, now: float) -> None:
        call = user.hook_calls.get(key[1]) if user is not None and user.hook_calls is not None else None
        if user is None or call is None or call.due is None or call.due > self._milliseconds():
            self._sending.discard(key)  # the store has said what was so a moment ago
            return
        chat = user.chats.get(key[1])
        if user.sessions or chat is None or chat.muted or user.is_blocked(chat.peer):
            self._drop(key, user)
            return
        self._count(_Attempt(user, chat, call), user.mailbox.acknowledged_through)

    def _count(self, attempt: _Attempt, after: int) -> None:
        user = attempt.user
        self._store.covered(user, attempt.chat, after, user.mailbox.head, partial(self._covered, attempt))

    def _covered(self, attempt: _Attempt, covered: Covered, failure: str | None, now: float) -> None:
        user, chat = attempt.user, attempt.chat
        key = user.user_id, chat.peer
        if failure is not None:
            self._sending.discard(key)
            return
        for seq, message_id, _ in covered.messages:
            if not user.mailbox.is_acknowledged(seq):
                attempt.count += 1
                attempt.first = attempt.first or (seq, message_id)
        if covered.messages and covered.messages[-1][0] < chat.newest:
            self._count(attempt, covered.messages[-1][0])
        elif attempt.first is None:
            self._drop(key, user)  # acknowledged, or removed by the retention
        elif self._content:
            self._store.messages_at(user, [attempt.first[0]], partial(self._send, attempt))
        else:
            self._send(attempt, [], None, now)

    def _send(self, attempt: _Attempt, found: list[Message], failure: str | None, now: float) -> None:
        user, chat, call = attempt.user, attempt.chat, attempt.call
        key = user.user_id, chat.peer
        if user.sessions or user.hook_calls is None or user.hook_calls.get(chat.peer) != call or failure:
            self._sending.discard(key)
            return
        assert self._hook is not None, "without one, no call is begun"
        assert attempt.first is not None, "something waits"
        told = {
            "type": "message.waiting",
            "to": user.user_id,
            "from": chat.peer,
            "display_name": chat.peer_name,
            "chat_id": chat_id(user.user_id, chat.peer),
            "message_id": attempt.first[1],
            "count": attempt.count,
        }
        if found:
            message = found[0]
            content, _ = codec.msg_parts(message.frame, chat.peer, user.user_id, message.message_id)
            told["content"] = codec.from_json(content)
        # The same for all attempts at a call, and for no other.
        name = f"{user.user_id} {chat.peer} {call.since}"
        call_id = f"msg_{blake2b(name.encode(), digest_size=16).hexdigest()}"
        self._hook.send(WaitingCall(user.user_id, chat.peer, call.since, call_id, codec.to_json(told)))

    def answered(self, call: WaitingCall, outcome: HookOutcome, now: float) -> None:
        """Note how the hook has answered a call, or has not."""
        self.counters[series("hook_calls_total", outcome=outcome)] += 1
        self._find(call.user_id, partial(self._answered, call, outcome), now)

    def _answered(
        self, call: WaitingCall, outcome: HookOutcome, user: User | None, failure: str | None, now: float
    ) -> None:
        self._sending.discard((call.user_id, call.peer))
        row = user.hook_calls.get(call.peer) if user is not None and user.hook_calls is not None else None
        if user is not None and user.hook_calls is not None and row is not None and row.since == call.since:
            due = self._due_again(row, user) if outcome == HookOutcome.FAILED else None
            user.hook_calls[call.peer] = row._replace(due=due)
            self._save(user, call.peer)
        self._begin(now)

    def _due_again(self, row: HookCall, user: User) -> int | None:
        """Return when a call that has failed is due again; None if it is given up."""
        now = self._milliseconds()
        passed = abs(now - row.since)  # the clock may have been set back
        if passed >= GIVE_UP_AFTER:
            self.counters["hook_given_up_total"] += 1
            _log.warning("the hook could not be told of a waiting message", extra=fields(user=user.user_id))
            return None
        # About twice as long each time; not all at once that failed at once.
        wait = min(max(passed, _BACKOFF_MIN), _BACKOFF_MAX)
        return now + int(wait * (0.5 + self._chance.fraction() / 2))

    # -- Rows --

    def _add(self, user: User, peer: str) -> None:
        now = self._milliseconds()
        if user.hook_calls is None:
            user.hook_calls = {}
        user.hook_calls[peer] = HookCall(now, now)
        self._save(user, peer)
        if len(self._ready) < _READY_MAX:
            self._ready.append((user.user_id, peer))

    def _drop(self, key: tuple[str, str], user: User) -> None:
        self._sending.discard(key)
        if user.hook_calls is not None and user.hook_calls.pop(key[1], None) is not None:
            user.hook_calls = user.hook_calls or None
            self._save(user, key[1])

    def _save(self, user: User, peer: str) -> None:
        self._store.save_hook_call(user, peer, partial(self._saved, user, peer))

    def _saved(self, user: User, peer: str, failure: str | None, now: float) -> None:
        if failure is not None:
            user.pins += 1
            self._unsaved.append((user, peer))

    def _milliseconds(self) -> int:
        return int(self._clock.seconds() * 1000)
