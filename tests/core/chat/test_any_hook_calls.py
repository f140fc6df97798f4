"""Whatever people and processes do, the hook is told of each chat exactly once until the user is back (D33).

Users come, go, write, acknowledge, mute and block; workers are killed, and replaced by successors. The web server takes calls, or fails.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat.hook_calls import AWAY_AFTER
from core.chat.ports import HookOutcome
from tests.core.chat.test_hook_calls import pass_time
from tests.core.world import Device, World
from tests.examples import examples

_USERS: Final = 3
_NO_LIMITS: Final = dict.fromkeys(
    ("messages_per_minute", "open_chats_per_minute", "hellos_per_minute", "lists_per_minute"), 0
)
_user = st.integers(0, _USERS - 1)
_step = st.one_of(
    st.tuples(st.just("come"), _user),
    st.tuples(st.just("go"), _user),
    st.tuples(st.just("write"), _user, _user),
    st.tuples(st.just("write"), _user, _user),
    st.tuples(st.just("acknowledge"), _user),
    st.tuples(st.just("mute"), _user, _user, st.booleans()),
    st.tuples(st.just("block"), _user, _user, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 6, 11])),
    st.tuples(st.just("fail"), st.booleans()),
    st.tuples(st.just("kill"), st.integers(0, 1)),
    st.tuples(st.just("succeed"), st.integers(0, 1)),
)


class Model:
    """The users, and of which chats the hook has been told since each was here last."""

    def __init__(self) -> None:
        self.world = World(2, hook_url="http://hook.example/", **_NO_LIMITS)
        self.users = [self.world.user_on(number % 2) for number in range(_USERS)]
        self.devices: dict[str, list[Device]] = {user: [] for user in self.users}
        self.told: Counter[tuple[str, str]] = Counter()
        self.outcome = HookOutcome.TOLD
        for user in self.users:
            self.come(self.users.index(user))
        for number, user in enumerate(self.users):
            for peer in self.users[number + 1 :]:
                self.devices[user][0].open_chat(peer)

    def here(self, number: int) -> list[Device]:
        return [device for device in self.devices[self.users[number]] if device.open]

    # -- What happens --

    def come(self, number: int) -> None:
        user = self.users[number]
        self.devices[user].append(
            self.world.device(user).hello(f"User {number}", capabilities=["chats", "block"])
        )
        for key in [key for key in self.told if key[0] == user]:
            del self.told[key]

    def go(self, number: int) -> None:
        for device in self.here(number)[-1:]:
            device.leave()

    def write(self, number: int, to: int) -> None:
        for device in self.here(number)[:1]:
            if number != to:
                device.msg(self.users[to])

    def acknowledge(self, number: int) -> None:
        for device in self.here(number)[:1]:
            device.answer_pings()

    def mute(self, number: int, peer: int, muted: bool) -> None:
        for device in self.here(number)[:1]:
            if number != peer:
                device.say("MUTE" if muted else "UNMUTE", user_id=self.users[peer])

    def block(self, number: int, peer: int, blocked: bool) -> None:
        for device in self.here(number)[:1]:
            if number != peer:
                device.say("BLOCK" if blocked else "UNBLOCK", user_id=self.users[peer])

    def wait(self, seconds: int) -> None:
        for _ in range(seconds * 2):
            self.tell(lambda: pass_time(self.world, 0.5))

    def fail(self, fails: bool) -> None:
        self.outcome = HookOutcome.FAILED if fails else HookOutcome.TOLD

    def kill(self, worker: int) -> None:
        self.take()
        self.world.restart(worker)

    def succeed(self, worker: int) -> None:
        self.take()
        self.world.settle()
        self.world.succeed(worker)

    def tell(self, act: Any) -> None:
        act()
        self.take()

    def take(self) -> None:
        """Answer what has come; nobody who is here is told of, nor anything twice."""
        for call in self.world.hook.answer(self.outcome):
            assert not self.here(self.users.index(call["to"])), "the user is here"
            assert call["count"] > 0
            if self.outcome == HookOutcome.TOLD:
                self.told[call["to"], call["from"]] += 1

    # -- What must be so --

    def check(self) -> None:
        """Long after everything, each chat in which something waits has been told of."""
        self.fail(False)
        self.wait(round(2 * AWAY_AFTER) + 60)
        assert set(self.told.values()) <= {1}, self.told
        for number, user in enumerate(self.users):
            record = self.world.store_of(user).records[user]
            through, ahead = record.acknowledged
            waiting = {row.sender for row in record.after(through) if row.seq not in ahead}
            for peer in waiting:
                block = record.blocks.get(peer)
                quiet = record.chats[peer].muted or (block is not None and block.by_user)
                if not (self.here(number) or quiet):
                    assert self.told[user, peer] == 1, (user, peer, record.hook_calls)
            if self.here(number):
                assert not record.hook_calls


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(_step, max_size=30))
def test_d33_every_chat_is_told_of_exactly_once_until_the_user_is_back(steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    for what, *arguments in steps:
        model.tell(lambda what=what, arguments=arguments: getattr(model, what)(*arguments))
    model.check()
