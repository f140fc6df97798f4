"""core.chat.succession: limits, tokens and what operators see go on in a successor."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core.auth.proof import Proof
from core.auth.tokens import TRIES, load_verifier
from core.chat.operator import answer
from core.process.settings import Settings
from core.wire.protocol import PING_BURST, STRIKES_PER_MINUTE
from tests.core.noting import Noting
from tests.core.stage import SESSION, SHARD, USER, Stage, needs
from tests.core.token_forge import SECRET, forge
from tests.core.world import START, FixedClock, World

#: The time of day when a world begins.
_NOON: Final = 1_704_110_400.0


class _Running(FixedClock):
    """The time of day of a world in seconds passes as that one's does."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def seconds(self) -> float:
        return _NOON + self._world.now - START


# -- Limits --


@needs(USER, "counted", messages_per_minute=3)
def test_messages_count_on(stage: Stage) -> None:
    ann, bob = stage.chatting()
    for _ in range(3):
        bob.msg(stage.ann_id)
    stage.succeed()
    bob.msg(stage.ann_id)
    assert ann.open


@needs(USER, "counted", typing_per_minute=2)
def test_typing_counts_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for is_typing in (True, False):
        bob.typing(is_typing)
    stage.succeed()
    bob.typing()


@needs(USER, "counted", open_chats_per_minute=2)
def test_open_chats_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(2):
        bob.open_chat(stage.ann_id)
    stage.succeed()
    bob.open_chat(stage.ann_id)


@needs(USER, "counted", hellos_per_minute=3)
def test_hellos_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(2):
        bob.hello("Bob Ray")
    stage.succeed()
    bob.hello("Bob Ray")


@needs(USER, "counted", history_per_minute=1)
def test_histories_count_on(stage: Stage) -> None:
    _, bob = stage.chatting("history")
    for last in (False, True):
        bob.say("HISTORY", **{"with": stage.ann_id})
        if not last:
            stage.succeed()


@needs(USER, "counted", presence_per_minute=1)
def test_presence_counts_on(stage: Stage) -> None:
    _, bob = stage.chatting("presence_delta")
    for last in (False, True):
        bob.say("PRESENCE", user_ids=[stage.ann_id])
        if not last:
            stage.succeed()


@needs(SHARD, "limits", messages_per_minute=3)
def test_limits_of_who_is_away_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for _ in range(3):
        bob.msg(stage.ann_id)
    stage.world.clock.now = b"2024-01-01T12:00:10.000Z"  # what was heard is no longer needed
    bob.leave()
    stage.world.pass_time(8.0, 0.5)
    stage.succeed()
    stage.come(stage.bob_id).msg(stage.ann_id)


@needs(SHARD, "limits", hellos_per_minute=2)
def test_limits_of_who_is_left_to_the_store_count_on(stage: Stage) -> None:
    bob = stage.come(stage.bob_id)
    bob.hello("Bob Ray")
    bob.leave()
    stage.world.pass_time(15.0, 0.5)
    assert stage.bob_id not in stage.world.shard_of(stage.bob_id).users
    stage.succeed()
    stage.come(stage.bob_id)


@needs(SESSION, "pings")
def test_pings_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for number in range(PING_BURST + 2):
        if number == PING_BURST - 1:
            stage.succeed()
        bob.say("PING")


@needs(SESSION, "strikes")
def test_invalid_messages_count_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    for number in range(STRIKES_PER_MINUTE + 1):
        if number == STRIKES_PER_MINUTE // 2:
            stage.succeed()
        bob.say_bytes(b"[]")


def _refused(stage: Stage, client: Noting, count: int) -> None:
    for _ in range(count):
        client.msg(stage.cat_id, settle=False)
    stage.world.settle()


@needs(SHARD, "spare", messages_per_minute=0)
def test_the_shared_credit_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 310)
    stage.succeed()
    _refused(stage, bob, 20)


@needs(SESSION, "pace", messages_per_minute=0)
def test_the_credit_of_a_connection_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 321)
    stage.succeed()
    _refused(stage, bob, 5)


@needs(SESSION, "slow_until", messages_per_minute=0)
def test_who_is_read_more_slowly_still_is(stage: Stage) -> None:
    _, bob = stage.chatting()
    _refused(stage, bob, 330)
    assert bob.held_until > stage.world.now
    stage.succeed()


# -- HELLO and tokens --


@needs(SESSION, "first")
def test_the_first_hello_is_the_one_that_the_front_saw(stage: Stage) -> None:
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
    bob.session = world.shard_of(stage.bob_id).connect(bob, stage.bob_id, 0, world.now, Proof(_NOON + 300.0))
    bob.hello()
    return bob


@needs(SESSION, "expires")
def test_a_token_expires_and_that_is_announced_once(stage: Stage) -> None:
    _limited_in_time(stage)
    stage.succeed()
    stage.world.pass_time(280.0, 1.0)
    stage.succeed()
    stage.world.pass_time(30.0, 1.0)


@needs(SESSION, "expiry_due")
def test_the_announcement_does_not_come_twice(stage: Stage) -> None:
    _limited_in_time(stage)
    stage.world.pass_time(280.0, 1.0)
    stage.succeed()
    stage.world.pass_time(30.0, 1.0)


@needs(SESSION, "token_tries")
def test_three_bad_tokens_are_too_many(stage: Stage) -> None:
    bob = _limited_in_time(stage)
    for number in range(TRIES):
        bob.hello(token=forge({"sub": stage.bob_id, "exp": _NOON - 10.0}))
        if number == 0:
            stage.succeed()


# -- What operators see --


@needs(SESSION, "since")
def test_operators_see_since_when_somebody_is_connected(stage: Stage) -> None:
    _, bob = stage.chatting()
    stage.succeed()
    stage.world.pass_time(3.0)
    _who(stage)
    assert bob.open


@needs(USER, "last_close")
def test_operators_see_how_the_last_connection_ended(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.bob_id).session.close(1008, "closed by the operator", stage.world.now)
    stage.succeed()
    _who(stage)


def _who(stage: Stage) -> None:
    answer(
        stage.world.shard_of(stage.bob_id).users,
        stage.world.shard_of(stage.bob_id).deletions,
        "who",
        stage.bob_id,
        stage.told.append,
        stage.world.now,
    )
    stage.world.settle()
