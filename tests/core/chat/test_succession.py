"""core.chat.succession: each thing that only memory knows, and what a client would notice if a successor did not get it.

Each scenario is played three times: on one process, with a successor at `Stage.succeed`, and with a successor that does not get the field.
The first two are the same for every client; the third is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from core.auth.tokens import TRIES, load_verifier
from core.chat.operator import answer
from core.process.settings import Settings
from core.wire.protocol import PING_BURST, PRESENCE_EVERYONE_MAX, STRIKES_PER_MINUTE, TYPING_EXPIRY
from tests.core.noting import Event, Noting
from tests.core.token_forge import SECRET, forge
from tests.core.world import START, FixedClock, Taken, World

#: The time of day when a world begins.
_NOON: Final = 1_704_110_400.0
_SLOW: Final = 1 << 20

Change = Callable[[Taken], None]


class _Running(FixedClock):
    """The time of day of a world in seconds passes as that one's does."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def seconds(self) -> float:
        return _NOON + self._world.now - START


class Stage:
    """Ann on worker 0, Bob on the same one or on worker 1, Cat on worker 1; and how a worker is replaced, if it is."""

    def __init__(self, far: bool, replace: bool, change: Change | None = None, **settings: Any) -> None:
        self.world = World(2, **settings)
        self.ann_id = self.world.user_on(0)
        self.bob_id = self.world.user_on(int(far))
        self.cat_id = self.world.user_on(1)
        self.far = far
        self.clients: list[Noting] = []
        #: What operators were told.
        self.told: list[Any] = []
        self._replace = replace
        self._change = change

    def succeed(self, *workers: int) -> None:
        """Replace these workers, or that of Bob."""
        self.world.settle()
        for worker in workers or (int(self.far),):
            if self._replace:
                self.world.succeed(worker, self._change)

    def connect(self, user: str) -> Noting:
        """A connection without HELLO."""
        client = Noting(self.world, user)
        self.clients.append(client)
        return client

    def come(self, user: str, *capabilities: str, **hello: Any) -> Noting:
        """A connection that has said HELLO."""
        client = self.connect(user)
        name = {self.ann_id: "Ann Lee", self.bob_id: "Bob Ray"}.get(user, "Somebody")
        client.hello(name, capabilities=list(capabilities), **hello)
        return client

    def chatting(self, *capabilities: str) -> tuple[Noting, Noting]:
        """A device of Ann's and one of Bob's, who have a chat that both know of; nothing is due."""
        ann, bob = self.come(self.ann_id, *capabilities), self.come(self.bob_id, *capabilities)
        ann.open_chat(self.bob_id)
        self.rest()
        return ann, bob

    def rest(self) -> None:
        """Let all pongs come that are asked for, and let them count."""
        for _ in range(3):
            self.world.pass_time(1.2, 0.2)
            for client in self.clients:
                if client.open:
                    client.answer_those_that_came()
        self.world.pass_time(6.0, 0.5)

    def events(self) -> list[list[Event]]:
        """All that came to each client, and what each is like in the end."""
        ends: list[list[Event]] = [[(0.0, "told", self.told)]]
        ends += [[*client.events, (0.0, "held", client.held_until)] for client in self.clients]
        return ends


Scenario = Callable[[Stage], None]
#: Where the field is: in the record of the shard, in its part about presence, in that of a user, in those of connections.
SHARD, PRESENCE, USER, SESSION = "shard", "presence", "user", "session"
SCENARIOS: dict[str, tuple[str, str, Scenario, dict[str, Any]]] = {}


def scenario(part: str, field: str, **settings: Any) -> Callable[[Scenario], Scenario]:
    """Add a scenario that needs a field of a part of the records."""

    def add(play: Scenario) -> Scenario:
        SCENARIOS[play.__name__] = part, field, play, settings
        return play

    return add


def _parts(taken: Taken, part: str) -> Iterator[dict[str, Any]]:
    for record, _ in taken:
        if part == SHARD and record["kind"] == "shard":
            yield record
        elif part == PRESENCE and record["kind"] == "shard":
            yield record["presence"]
        elif part == USER and record["kind"] == "user":
            yield record
        elif part == SESSION:
            yield from record.get("sessions", [])


def without(part: str, field: str) -> Change:
    """What takes a field out of all records that have it."""

    def change(taken: Taken) -> None:
        parts = list(_parts(taken, part))
        assert any(field in one for one in parts), f"no {part} has {field!r}"
        for one in parts:
            one.pop(field, None)

    return change


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_client_notices_and_each_would_without_the_field(name: str, far: bool) -> None:
    part, field, play, limits = SCENARIOS[name]
    stages = [
        Stage(far, False, **limits),
        Stage(far, True, **limits),
        Stage(far, True, without(part, field), **limits),
    ]
    for stage in stages:
        play(stage)
    alone, succeeded, incomplete = [stage.events() for stage in stages]
    assert succeeded == alone
    assert incomplete != alone, f"nobody needs {field}"


# -- Limits --


@scenario(USER, "counted", messages_per_minute=3)
def messages_count_on(stage: Stage) -> None:
    ann, bob = stage.chatting()
    for _ in range(3):
        bob.msg(stage.ann_id)
    stage.succeed()
    bob.msg(stage.ann_id)
    assert ann.open


@scenario(USER, "counted", typing_per_minute=2)
def typing_counts_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for is_typing in (True, False):
        bob.typing(is_typing)
    stage.succeed()
    bob.typing()


@scenario(USER, "counted", open_chats_per_minute=2)
def open_chats_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(2):
        bob.open_chat(stage.ann_id)
    stage.succeed()
    bob.open_chat(stage.ann_id)


@scenario(USER, "counted", hellos_per_minute=3)
def hellos_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(2):
        bob.hello("Bob Ray")
    stage.succeed()
    bob.hello("Bob Ray")


@scenario(USER, "counted", history_per_minute=1)
def histories_count_on(stage: Stage) -> None:
    _, bob = stage.chatting("history")
    for last in (False, True):
        bob.say("HISTORY", **{"with": stage.ann_id})
        if not last:
            stage.succeed()


@scenario(USER, "counted", presence_per_minute=1)
def presence_counts_on(stage: Stage) -> None:
    _, bob = stage.chatting("presence_delta")
    for last in (False, True):
        bob.say("PRESENCE", user_ids=[stage.ann_id])
        if not last:
            stage.succeed()


@scenario(SHARD, "limits", messages_per_minute=3)
def limits_of_who_is_away_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(3):
        bob.msg(stage.ann_id)
    stage.world.clock.now = b"2024-01-01T12:00:10.000Z"  # what was heard is no longer needed
    bob.leave()
    stage.world.pass_time(8.0, 0.5)
    stage.succeed()
    stage.come(stage.bob_id).msg(stage.ann_id)


@scenario(SHARD, "limits", hellos_per_minute=2)
def limits_of_who_is_left_to_the_store_count_on(stage: Stage) -> None:
    bob = stage.come(stage.bob_id)
    bob.hello("Bob Ray")
    bob.leave()
    stage.world.pass_time(15.0, 0.5)
    assert stage.bob_id not in stage.world.shard_of(stage.bob_id).users
    stage.succeed()
    stage.come(stage.bob_id)


@scenario(SESSION, "pings")
def pings_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for number in range(PING_BURST + 2):
        if number == PING_BURST - 1:
            stage.succeed()
        bob.say("PING")


@scenario(SESSION, "strikes")
def invalid_messages_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for number in range(STRIKES_PER_MINUTE + 1):
        if number == STRIKES_PER_MINUTE // 2:
            stage.succeed()
        bob.say_bytes(b"[]")


def _refused(stage: Stage, client: Noting, count: int) -> None:
    for _ in range(count):
        client.msg(stage.cat_id, settle=False)
    stage.world.settle()


@scenario(SHARD, "spare", messages_per_minute=0)
def the_shared_credit_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 310)
    stage.succeed()
    _refused(stage, bob, 20)


@scenario(SESSION, "pace", messages_per_minute=0)
def the_credit_of_a_connection_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 321)
    stage.succeed()
    _refused(stage, bob, 5)


@scenario(SESSION, "slow_until", messages_per_minute=0)
def who_is_read_more_slowly_still_is(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 330)
    assert bob.held_until > stage.world.now
    stage.succeed()


# -- Delivery --


@scenario(SESSION, "cursor")
def what_was_written_is_not_written_again(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.msg(stage.bob_id, "one")
    stage.succeed()
    ann.msg(stage.bob_id, "two")


@scenario(SESSION, "missed_through")
def what_was_missed_comes_as_far_as_nobody_has_it(stage: Stage) -> None:
    ann, bob = stage.chatting()
    for number in range(20):
        ann.msg(stage.bob_id, f"{number}", f"{number}")
    bob.say("MSG_ACK", message_id="15")
    slow = stage.connect(stage.bob_id)
    slow.waiting = _SLOW
    slow.hello("Bob Ray")
    stage.succeed()
    slow.drain()


@scenario(SESSION, "furthest")
def an_old_message_that_is_written_again_is_not_behind_a_new_chat(stage: Stage) -> None:
    ann, bob = stage.chatting("resume")
    for number in range(3):
        ann.msg(stage.bob_id, f"{number}", f"{number}")
    cursors = [message["cursor"] for message in bob.take("MSG")]
    bob.waiting = _SLOW
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursors[0]})
    stage.succeed()
    bob.waiting = 0
    stage.come(stage.cat_id).open_chat(stage.bob_id)
    bob.drain()
    bob.say("MSG_ACK", message_id="1", **{"from": stage.ann_id})
    bob.leave()
    stage.come(stage.bob_id)


@scenario(SESSION, "ask_at")
def who_was_written_to_is_pinged(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.msg(stage.bob_id)
    stage.succeed()
    stage.world.pass_time(3.0)


@scenario(SESSION, "confirm_asked")
def the_pong_to_a_ping_of_the_predecessor_counts(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    stage.succeed()
    bob.answer_those_that_came()
    stage.world.pass_time(6.0)


@scenario(SESSION, "confirm_asked_at")
def there_is_one_ping_a_second(stage: Stage) -> None:
    ann, bob = stage.chatting()
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    ann.msg(stage.bob_id)
    stage.world.pass_time(2.0)


@scenario(SESSION, "confirmed")
def what_a_pong_has_confirmed_counts_in_time(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    stage.world.pass_time(6.0)


@scenario(SESSION, "confirm_seq")
def what_a_pong_has_confirmed_counts_when_the_connection_ends(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    bob.leave()


@scenario(USER, "receipts_due")
def a_pong_tells_the_sender(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.succeed()
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.world.pass_time(6.0)


@scenario(USER, "receipts_due")
def a_pong_tells_the_sender_of_what_came_to_an_earlier_connection(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts", "resume")
    ann.msg(stage.bob_id, "one")
    cursor = bob.cursor
    bob.leave()
    stage.world.clock.now = b"2024-01-01T12:00:10.000Z"  # what was heard is no longer needed
    stage.world.pass_time(8.0, 0.5)
    stage.succeed()
    bob = stage.come(stage.bob_id, "receipts", "resume", resume={"cursor": cursor})
    ann.msg(stage.bob_id, "two")
    stage.rest()


@scenario(USER, "heard_at")
def an_answer_is_later_than_what_it_answers(stage: Stage) -> None:
    ann, bob = stage.chatting()
    ann.msg(stage.bob_id)
    stage.succeed()
    bob.msg(stage.ann_id)


@scenario(SESSION, "announcements")
def a_chat_that_waits_for_room_is_announced(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.waiting = _SLOW
    stage.come(stage.cat_id).open_chat(stage.bob_id)
    stage.succeed()
    bob.drain()


@scenario(SESSION, "announcements")
def a_pong_confirms_a_chat_that_was_announced_before(stage: Stage) -> None:
    """Both if the ping was on its way, and if it was due."""
    for seconds in (0.1, 1.2):
        _, bob = stage.come(stage.ann_id), stage.come(stage.bob_id)
        stage.come(stage.cat_id if seconds > 1.0 else stage.ann_id).open_chat(stage.bob_id)
        stage.world.pass_time(seconds)
        stage.succeed()
        stage.rest()
        bob.leave()
        stage.come(stage.bob_id)


@scenario(SESSION, "capabilities")
def capabilities_stay_in_force(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts", "resume", "carbons", "history")
    stage.come(stage.bob_id, "carbons")
    stage.succeed()
    bob.msg(stage.ann_id)
    ann.msg(stage.bob_id)
    bob.say("HISTORY", **{"with": stage.ann_id})


# -- Typing --


@scenario(SHARD, "typing")
def an_indicator_ends_in_time(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.typing()
    stage.world.pass_time(3.0)
    stage.succeed()
    stage.world.pass_time(TYPING_EXPIRY, 0.5)


@scenario(SESSION, "typing_to")
def who_leaves_is_typing_no_more(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.typing()
    stage.succeed()
    bob.leave()


@scenario(SESSION, "typing_held")
def held_typing_is_told_when_there_is_room(stage: Stage) -> None:
    ann, bob = stage.chatting()
    bob.waiting = _SLOW
    ann.typing()
    stage.succeed()
    bob.waiting = 0
    stage.world.pass_time(0.2)


def _with_cat(stage: Stage) -> tuple[Noting, Noting, Noting]:
    ann, bob = stage.chatting()
    cat = stage.come(stage.cat_id)
    cat.open_chat(stage.bob_id)
    stage.rest()
    return ann, bob, cat


@scenario(SESSION, "chosen_peer")
def typing_goes_to_the_chat_that_was_chosen(stage: Stage) -> None:
    _, bob, cat = _with_cat(stage)
    bob.msg(stage.ann_id)
    cat.msg(stage.bob_id)
    stage.succeed()
    bob.typing()
    # Whatever numbers the requests of the successor have, the next choice counts.
    bob.msg(stage.cat_id)
    bob.typing()
    stage.succeed()
    bob.msg(stage.ann_id)
    bob.typing()


@scenario(SESSION, "received_peer")
def typing_goes_to_the_chat_that_was_heard_last(stage: Stage) -> None:
    ann, bob, _ = _with_cat(stage)
    ann.msg(stage.bob_id)
    stage.succeed()
    bob.typing()


# -- Presence --


@scenario(PRESENCE, "online")
def who_is_online_stays_online(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.world.pass_time(3.0, 0.5)
    stage.succeed(0, 1)
    stage.world.pass_time(8.0, 0.5)


@scenario(PRESENCE, "leaving")
def the_grace_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.leave()
    stage.world.pass_time(2.0)
    stage.succeed()
    stage.world.pass_time(8.0)


@scenario(PRESENCE, "leaving")
def the_grace_of_a_user_of_another_worker_that_died_goes_on(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.world.kill(1)
    stage.world.pass_time(2.0)
    stage.succeed(0)
    stage.world.pass_time(8.0)


@scenario(PRESENCE, "replicas")
def who_has_left_another_worker_unheard_does_not_stay(stage: Stage) -> None:
    stage.chatting()
    another = stage.world.user_on(1)
    cat = stage.come(stage.cat_id)
    stage.world.pass_time(3.0)
    stage.world.cut_off.add(0)
    cat.leave()
    stage.world.pass_time(6.0)
    stage.world.cut_off.clear()
    stage.succeed(0)
    stage.come(another)
    stage.world.pass_time(3.0)


@scenario(PRESENCE, "changed")
def who_came_just_now_is_told_to_all(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@scenario(PRESENCE, "revision")
def what_came_later_is_told_to_who_gets_changes(stage: Stage) -> None:
    stage.chatting("presence_delta")
    stage.succeed()
    stage.come(stage.cat_id)
    stage.world.pass_time(3.0)


@scenario(SESSION, "presence_revision")
def who_was_told_just_now_is_not_told_again(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.come(stage.bob_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@scenario(SESSION, "presence_told")
def presence_comes_once_a_second(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.bob_id)
    stage.come(stage.cat_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@scenario(SESSION, "presence_full")
def changes_are_told_as_changes(stage: Stage) -> None:
    stage.chatting("presence_delta")
    stage.succeed()
    stage.come(stage.cat_id)
    stage.world.pass_time(3.0)


def _contact_in_the_interval(stage: Stage) -> None:
    """Bob, who was told just now, is to be told of a change when the second is over."""
    ann, _ = stage.chatting("presence_delta")
    stage.come(stage.bob_id, "presence_delta")
    ann.hello("Anna Lee", capabilities=["presence_delta"])
    stage.world.pass_time(0.3)
    stage.succeed()
    stage.world.pass_time(3.0)


@scenario(SESSION, "presence_changes", presence="contacts")
def changes_that_wait_are_told(stage: Stage) -> None:
    _contact_in_the_interval(stage)


@scenario(SESSION, "presence_due", presence="contacts")
def who_is_to_be_told_is_told(stage: Stage) -> None:
    _contact_in_the_interval(stage)


@scenario(USER, "present")
def who_is_here_is_told_of_others(stage: Stage) -> None:
    stage.chatting()
    stage.succeed()
    stage.come(stage.cat_id)
    stage.world.pass_time(8.0)


# -- HELLO and tokens --


@scenario(SESSION, "first")
def the_first_hello_is_the_one_that_the_front_saw(stage: Stage) -> None:
    bob = stage.connect(stage.bob_id)
    stage.succeed()
    bob.say("HELLO", user_id=stage.ann_id, display_name="Ann Lee")


def _limited_in_time(stage: Stage) -> Noting:
    """A device of Bob's whose token expires in 300 s."""
    world = stage.world
    world.clock = _Running(world)
    world.tokens = load_verifier(Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0), Path.read_bytes)
    for shard in world.shards:
        shard.expiries.clock = world.clock
        shard.use_tokens(world.tokens)
    bob = stage.connect(stage.bob_id)
    bob.session.on_closed(world.now)
    bob.session = world.shard_of(stage.bob_id).connect(bob, stage.bob_id, 0, world.now, _NOON + 300.0)
    bob.hello()
    return bob


@scenario(SESSION, "expires")
def a_token_expires_and_that_is_announced_once(stage: Stage) -> None:
    _limited_in_time(stage)
    stage.succeed()
    stage.world.pass_time(280.0, 1.0)
    stage.succeed()
    stage.world.pass_time(30.0, 1.0)


@scenario(SESSION, "expiry_due")
def the_announcement_does_not_come_twice(stage: Stage) -> None:
    _limited_in_time(stage)
    stage.world.pass_time(280.0, 1.0)
    stage.succeed()
    stage.world.pass_time(30.0, 1.0)


@scenario(SESSION, "token_tries")
def three_bad_tokens_are_too_many(stage: Stage) -> None:
    bob = _limited_in_time(stage)
    for number in range(TRIES):
        bob.hello(token=forge({"sub": stage.bob_id, "exp": _NOON - 10.0}))
        if number == 0:
            stage.succeed()


# -- What operators see --


@scenario(SESSION, "since")
def operators_see_since_when_somebody_is_connected(stage: Stage) -> None:
    _, bob = stage.chatting()
    stage.succeed()
    stage.world.pass_time(3.0)
    _who(stage)
    assert bob.open


@scenario(USER, "last_close")
def operators_see_how_the_last_connection_ended(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.bob_id).session.close(1008, "closed by the operator", stage.world.now)
    stage.succeed()
    _who(stage)


def _who(stage: Stage) -> None:
    answer(stage.world.shard_of(stage.bob_id).users, "who", stage.bob_id, stage.told.append, stage.world.now)
    stage.world.settle()


@pytest.mark.parametrize("successor", [False, True])
def test_d21_the_mode_of_presence_stays(successor: bool) -> None:
    """With so many online as both modes may have."""
    stage = Stage(False, successor)
    ann = stage.come(stage.ann_id)
    crowd = [stage.come(stage.world.user_on(1)) for _ in range(PRESENCE_EVERYONE_MAX + 5)]
    stage.world.pass_time(3.0, 1.0)
    for client in crowd[:20]:
        client.leave()
    stage.world.pass_time(8.0, 1.0)
    stage.succeed(0)
    ann.take()
    ann.hello("Ann Lee")
    stage.world.pass_time(3.0, 1.0)
    assert {len(presence["users"]) for presence in ann.take("PRESENCE")} == {1}
