"""Proof by token in the core (D5): three tries before HELLO, and a connection that ends when its token does, unless it is renewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from core.auth.proof import NO_PROOF, Proof
from core.auth.tokens import ANNOUNCE_SECONDS, TRIES, load_verifier
from core.chat.lobby import Lobby
from core.process.settings import Settings
from core.wire.validation import Hello, Validator
from tests.core.token_forge import SECRET, forge
from tests.core.world import START, TIMESTAMP, Device, World, payload_of

#: The time of day when a world begins.
NOON: Final = 1_704_110_400.0
NONSENSE: Final = "nonsense"
SETTINGS: Final = Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0)


def token(user: str, seconds: float, **claims: Any) -> str:
    """One that is valid for so long from noon on."""
    return forge({"sub": user, "exp": NOON + seconds} | claims)


class Dial:
    """The time of day of a world: it passes as that one's does."""

    def __init__(self, world: World) -> None:
        self._world = world

    def timestamp(self) -> bytes:
        return TIMESTAMP

    def seconds(self) -> float:
        return NOON + self._world.now - START


@pytest.fixture
def world() -> World:
    world = World(1, hellos_per_minute=0)
    for shard in world.shards:
        shard.expiries.tokens = load_verifier(SETTINGS, Path.read_bytes)
        shard.expiries.clock = Dial(world)
    return world


def come(world: World, user: str, seconds: float) -> Device:
    """A device whose token the front has seen, valid for so long, and that has read what came."""
    device = world.device(user)
    device.session.on_closed(world.now)
    device.session = world.shard_of(user).connect(
        device, user, 0, world.now, Proof(NOON + world.now - START + seconds)
    )
    device.hello(token=token(user, seconds))
    device.take()
    return device


def test_d5_the_end_is_announced_and_comes(world: World) -> None:
    ann = come(world, world.user_on(0), 300.0)
    world.pass_time(300.0 - ANNOUNCE_SECONDS - 1.0)
    assert ann.kinds() == []
    world.pass_time(1.2)
    notice = ann.error()
    assert notice["code"] == "UNAUTHORIZED"
    assert notice["details"]["type"] == "HELLO"
    assert notice["details"]["reason"] == "expires"
    assert ANNOUNCE_SECONDS - 2.0 <= notice["details"]["expires_in"] <= ANNOUNCE_SECONDS
    world.pass_time(ANNOUNCE_SECONDS - 1.0)
    assert ann.open
    assert ann.kinds() == []
    world.pass_time(1.2)
    assert ann.closed == (1008, "token expired")


def test_d5_a_short_token_is_announced_when_half_of_it_is_over(world: World) -> None:
    ann = come(world, world.user_on(0), 20.0)
    world.pass_time(9.5)
    assert ann.kinds() == []
    world.pass_time(1.0)
    assert 9 <= ann.error()["details"]["expires_in"] <= 10
    world.pass_time(10.0)
    assert ann.closed == (1008, "token expired")


def test_d5_a_new_token_keeps_the_connection(world: World) -> None:
    """As often as one likes; nothing is lost, and the user does not go offline."""
    user = world.user_on(0)
    ann = come(world, user, 100.0)
    for minute in range(1, 5):
        world.pass_time(90.0)
        assert ann.error()["details"]["reason"] == "expires"
        ann.hello(token=token(user, 90.0 * minute + 100.0))
        assert "HELLO_ACK" in ann.kinds()
        ann.take()
    assert ann.open
    world.pass_time(101.0)
    assert ann.closed == (1008, "token expired")


def test_d5_a_token_that_ends_sooner_takes_nothing_away(world: World) -> None:
    user = world.user_on(0)
    ann = come(world, user, 300.0)
    ann.hello(token=token(user, 30.0))
    ann.take()
    world.pass_time(200.0)
    assert ann.open
    assert ann.errors() == []


@pytest.mark.parametrize("wrong", ["expired", "another user", "another key", "nonsense"])
def test_d5_a_bad_token_renews_nothing_and_three_end_it(world: World, wrong: str) -> None:
    user = world.user_on(0)
    ann = come(world, user, 300.0)
    made = {
        "expired": token(user, -1.0),
        "another user": token(world.user_on(0), 900.0),
        "another key": forge({"sub": user, "exp": NOON + 900.0}, SECRET + "!"),
        "nonsense": NONSENSE,
    }[wrong]
    for _ in range(TRIES - 1):
        ann.hello("Another name", token=made)
        error = ann.error()
        assert error["code"] == "UNAUTHORIZED"
        assert made not in json.dumps(error)
        assert ann.kinds() == [], "the name did not change either"
    ann.hello(token=made)
    assert ann.error()["code"] == "UNAUTHORIZED"
    assert ann.closed == (1008, "no valid token in three tries")


def test_d5_tries_count_in_a_row(world: World) -> None:
    user = world.user_on(0)
    ann = come(world, user, 300.0)
    for number in range(5):
        for _ in range(TRIES - 1):
            ann.hello(token=NONSENSE)
        ann.hello(token=token(user, 400.0 + number))
    assert ann.open


def test_d3_a_new_name_needs_no_new_token(world: World) -> None:
    ann = come(world, world.user_on(0), 300.0)
    ann.hello("Another name")
    assert ann.kinds()[0] == "HELLO_ACK"


def test_d5_another_users_good_token_does_not_change_who_it_is(world: World) -> None:
    user, other = world.user_on(0), world.user_on(0)
    ann = come(world, user, 300.0)
    ann.say("HELLO", user_id=other, display_name="Bob Ray", token=token(other, 900.0))
    assert ann.error()["details"]["field"] == "user_id"


def test_d5_a_token_that_is_over_before_the_worker_has_the_socket_ends_at_once(world: World) -> None:
    ann = come(world, world.user_on(0), -5.0)
    world.pass_time(0.2)
    assert ann.closed == (1008, "token expired")


def test_who_has_gone_leaves_nothing_behind(world: World) -> None:
    """Neither the session, however long its token lasts, nor a second that was used before."""
    user = world.user_on(0)
    expiries = world.shard_of(user).expiries
    for _ in range(50):
        come(world, user, 86_400.0).leave()
    assert not any(expiries._buckets.values())
    assert len(expiries._times) == 1


def test_without_tokens_nothing_expires() -> None:
    world = World(1)
    user = world.user_on(0)
    ann = world.device(user).hello(token=NONSENSE)
    world.pass_time(10.0)
    ann.hello("Another name", token=7)
    assert "ERROR" not in ann.kinds()
    assert ann.open


# -- Before HELLO --


class Visitor:
    """A client in the lobby of a server that wants tokens."""

    USER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

    def __init__(self, bearer: str | None = None) -> None:
        self.lobby = Lobby(Validator(), START, 1.0, load_verifier(SETTINGS, Path.read_bytes), bearer)

    def hello(self, **data: Any) -> Hello | dict[str, Any]:
        """The HELLO, or the data of the ERROR."""
        said = {"type": "HELLO", "data": {"user_id": self.USER, "display_name": "Ann Lee"} | data}
        answer = self.lobby.receive(json.dumps(said).encode(), START, TIMESTAMP, NOON)
        return answer if isinstance(answer, Hello) else json.loads(payload_of(answer))["data"]

    def refused(self, **data: Any) -> dict[str, Any]:
        """The data of the ERROR that must follow."""
        answer = self.hello(**data)
        assert isinstance(answer, dict)
        return answer


GOOD = token(Visitor.USER, 60.0)
BAD = token(Visitor.USER, -60.0)


@pytest.mark.parametrize(
    ("bearer", "said", "good"),
    [
        (None, GOOD, True),
        (GOOD, None, True),
        (BAD, GOOD, True),
        (GOOD, BAD, False),
        (None, BAD, False),
        (BAD, None, False),
        (None, None, False),
        ("", None, False),
    ],
)
def test_d5_a_token_comes_in_hello_or_else_with_the_upgrade(
    bearer: str | None, said: str | None, good: bool
) -> None:
    visitor = Visitor(bearer)
    outcome = visitor.hello() if said is None else visitor.hello(token=said)
    assert isinstance(outcome, Hello) is good
    if good:
        assert visitor.lobby.proof == Proof(NOON + 60.0)
    else:
        assert isinstance(outcome, dict)
        assert outcome["code"] == "UNAUTHORIZED"
        assert visitor.lobby.proof == NO_PROOF


def test_d5_after_three_tries_it_is_over() -> None:
    visitor = Visitor()
    for number in range(1, TRIES + 1):
        assert not visitor.lobby.is_over
        outcome = visitor.hello(token=BAD)
        assert isinstance(outcome, dict)
        assert outcome["details"]["reason"] == visitor.lobby.refused_token == "expired"
        assert visitor.lobby.is_over is (number == TRIES)


def test_d5_what_is_invalid_is_no_try() -> None:
    """It counts as such (D25)."""
    visitor = Visitor()
    for _ in range(10):
        assert visitor.refused(token=7)["code"] == "VALIDATION"
        assert visitor.refused(user_id="x", token=GOOD)["code"] == "VALIDATION"
    assert not visitor.lobby.is_over
    assert isinstance(visitor.hello(token=GOOD), Hello)


def test_who_does_not_say_what_time_it_is_gets_nobody_in() -> None:
    """A forgotten time must not be one at which every token is good."""
    said = {"type": "HELLO", "data": {"user_id": Visitor.USER, "display_name": "Ann Lee", "token": GOOD}}
    assert isinstance(Visitor().lobby.receive(json.dumps(said).encode(), START, TIMESTAMP), bytes)
