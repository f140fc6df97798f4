"""core.chat.history: what two users have written to each other, a page at a time (D14)."""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.wire.protocol import HISTORY_DEFAULT, HISTORY_MAX, HISTORY_MAX_BYTES
from core.wire.timestamps import format_timestamp
from tests.core.pair import Pair
from tests.core.world import Device, payload_of

#: When the clock of a world starts, in seconds since 1970.
NOON: Final = 1_704_110_400
#: Without limits on how fast a test may write and ask.
UNLIMITED: dict[str, Any] = {"messages_per_minute": 0, "history_per_minute": 0}


def talk(pair: Pair, said: str, times: list[int] | None = None) -> list[Device]:
    """Ann and Bob say something for each `a` and `b`, one a second or at these times, numbered from 0; Ann has `history`."""
    ann, bob = pair.chatting("history")
    for number, who in enumerate(said):
        second = number if times is None else times[number]
        pair.world.clock.now = b"2024-01-01T12:%02d:%02d.000Z" % divmod(second, 60)
        if who == "a":
            ann.msg(pair.bob, f"{number}")
        else:
            bob.msg(pair.ann, f"{number}")
    ann.take()
    bob.take()
    return [ann, bob]


def page(device: Device, peer: str, **data: Any) -> tuple[list[str], str | None]:
    """(what the messages say, `next`) of one HISTORY."""
    device.say("HISTORY", **{"with": peer}, **data)
    answer = device.one("HISTORY")
    assert answer["with"] == peer
    return [message["content"] for message in answer["messages"]], answer["next"]


def pages(device: Device, peer: str, **data: Any) -> list[list[str]]:
    """What all pages say, from the newest one to the end."""
    contents, following = page(device, peer, **data)
    all_pages = [contents]
    while following is not None:
        contents, following = page(device, peer, before=following, **data)
        assert contents, "a page that was promised holds something"
        all_pages.append(contents)
    return all_pages


def everything(device: Device, peer: str, **data: Any) -> list[str]:
    """What all pages say together."""
    return list(chain.from_iterable(pages(device, peer, **data)))


def newest_first(count: int) -> list[str]:
    """What `talk` has said, as history tells it."""
    return [f"{number}" for number in reversed(range(count))]


# -- What it answers --


def test_d14_both_directions_newest_first(pair: Pair) -> None:
    """Each message as its recipient got it, also for its sender; both sides read the same."""
    ann, bob = pair.chatting("history")
    ann.msg(pair.bob, 'Hi "Bob"\n\\ ü \U0001f600', "a-1")
    pair.world.clock.now = b"2024-01-01T12:00:01.000Z"
    bob.msg(pair.ann, "Hi Ann", "b-1")
    received = [ann.one("MSG"), bob.one("MSG")]
    ann.say("HISTORY", **{"with": pair.bob.upper()})
    bob.say("HISTORY", **{"with": pair.ann})
    assert ann.one("HISTORY") == {"with": pair.bob, "messages": received, "next": None}
    assert bob.one("HISTORY") == {"with": pair.ann, "messages": received, "next": None}


def test_d14_what_crossed_stands_in_the_same_order_for_both(pair: Pair) -> None:
    ann, bob = pair.chatting("history")
    for number in range(3):
        ann.msg(pair.bob, f"a{number}", settle=False)
        bob.msg(pair.ann, f"b{number}", settle=False)
    pair.world.settle()
    ann.take()
    bob.take()
    seen = everything(ann, pair.bob)
    assert seen == everything(bob, pair.ann, limit=2)
    assert sorted(seen) == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_d14_a_chat_in_which_nobody_wrote(pair: Pair) -> None:
    ann, _ = pair.chatting("history")
    assert page(ann, pair.bob) == ([], None)


@pytest.mark.parametrize("said", ["aaa", "bbb"])
def test_d14_only_one_of_them_wrote(pair: Pair, said: str) -> None:
    ann, bob = talk(pair, said)
    for limit in (1, 2, 3, 4):
        assert everything(ann, pair.bob, limit=limit) == newest_first(3)
        assert everything(bob, pair.ann, limit=limit) == newest_first(3)


def test_d14_no_other_conversation_shows(pair: Pair) -> None:
    """Though it is in the same mailboxes."""
    ann, bob = talk(pair, "abab")
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.ann)
    cat.open_chat(pair.bob)
    cat.msg(pair.ann, "to Ann")
    cat.msg(pair.bob, "to Bob")
    ann.msg(pair.cat, "from Ann")
    assert page(ann, pair.bob)[0] == page(bob, pair.ann)[0] == newest_first(4)


def test_d14_acknowledged_or_not_read_or_not_here_or_away(pair: Pair) -> None:
    """It is what was written that counts, and it outlives every process."""
    ann, bob = talk(pair, "aabb")
    bob.answer_pings()
    bob.leave()
    pair.world.clock.now = b"2024-01-01T12:00:04.000Z"
    ann.msg(pair.bob, "4")
    for worker in (0, 1):
        pair.world.restart(worker)
    ann = pair.come(pair.ann, "history")
    assert page(ann, pair.bob) == (newest_first(5), None)


def test_d14_what_retention_has_removed_is_gone(pair: Pair) -> None:
    """Also in the middle of paging."""
    ann, _ = talk(pair, "abababab")
    first, following = page(ann, pair.bob, limit=3)
    assert first == ["7", "6", "5"]
    for user in (pair.ann, pair.bob):
        shard = pair.world.shard_of(user)
        shard.users.purged(pair.world.store_of(user).purge(user, 1), pair.world.now)
    assert page(ann, pair.bob, before=following) == (["4", "3", "2"], None)


def test_d14_d20_what_is_not_durable_does_not_show(pair: Pair) -> None:
    """HISTORY behind a MSG whose commit takes its time answers when it can."""
    ann, _ = talk(pair, "ab")
    store = pair.world.store_of(pair.bob)
    store.slow = True
    pair.world.clock.now = b"2024-01-01T12:00:02.000Z"
    ann.msg(pair.bob, "2")
    ann.say("HISTORY", **{"with": pair.bob})
    assert not ann.inbox
    store.slow = False
    store.failure = "disk full"
    pair.world.settle()
    assert [message["content"] for message in ann.one("HISTORY")["messages"]] == ["1", "0"]
    store.failure = None
    ann.msg(pair.bob, "2")
    assert page(ann, pair.bob)[0] == ["2", "1", "0"]


# -- The order --


@pytest.mark.parametrize(
    ("said", "times"),
    [
        ("abab", [0, 0, 0, 0]),
        ("aabb", [5, 6, 1, 2]),
        ("abba", [3, 2, 1, 0]),
    ],
)
def test_d14_an_answer_is_later_than_what_it_answers(pair: Pair, said: str, times: list[int]) -> None:
    """Also within a millisecond, and when a clock is set back."""
    ann, _ = talk(pair, said, times)
    whole = page(ann, pair.bob)[0]
    assert whole == list("3210")
    for limit in (1, 2, 3):
        assert everything(ann, pair.bob, limit=limit) == whole


@pytest.mark.parametrize(
    "back", [600, *(pytest.param(back, marks=pytest.mark.slow) for back in (18_000, 30 * 86_400))]
)
@pytest.mark.parametrize("restarted", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("said", ["ab", "ba", "aab", "bba"])
def test_d14_d18_the_order_is_no_matter_of_clocks_nor_of_what_a_process_remembers(
    far: bool, said: str, restarted: tuple[int, ...], back: int
) -> None:
    """Workers are started anew when the clock is put back, and when it is right again; both see one order, on pages of any size."""
    pair = Pair(far, **UNLIMITED)
    number = 0
    for clock in (NOON, NOON - back, NOON + 1):
        pair.world.clock.now = format_timestamp(clock * 1000)
        for index in restarted if number else ():
            pair.world.restart(index)
        ann, bob = pair.chatting("history")
        for who in said:
            device, peer = (ann, pair.bob) if who == "a" else (bob, pair.ann)
            device.msg(peer, f"{number}")
            number += 1
        ann.leave()
        bob.leave()
    for user, peer in ((pair.ann, pair.bob), (pair.bob, pair.ann)):
        device = pair.come(user, "history")
        device.take()
        for limit in (1, 3, 100):
            assert everything(device, peer, limit=limit) == newest_first(number)


def test_d14_what_somebody_else_wrote_does_not_count(pair: Pair) -> None:
    """Ann has got more mail than Bob: that moves none of their messages."""
    ann, bob = pair.chatting("history")
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.ann)
    for number in range(0, 9, 3):
        bob.msg(pair.ann, f"{number}")
        for _ in range(10):
            cat.msg(pair.ann, "Hi.")
        ann.msg(pair.bob, f"{number + 1}")
        bob.msg(pair.ann, f"{number + 2}")
    ann.take()
    bob.take()
    assert everything(ann, pair.bob, limit=2) == everything(bob, pair.ann) == newest_first(9)


def test_d14_retention_that_empties_a_mailbox_disturbs_no_order(far: bool) -> None:
    """The count of an empty mailbox begins again; what is left in the other one is older than what comes all the same."""
    pair = Pair(far, **UNLIMITED)
    talk(pair, "abab")
    world = pair.world
    world.shard_of(pair.bob).users.purged(world.store_of(pair.bob).purge(pair.bob, 2), world.now)
    for index in range(2):
        world.restart(index)
    ann, bob = pair.chatting("history")
    bob.msg(pair.ann, "4")
    ann.msg(pair.bob, "5")
    bob.msg(pair.ann, "6")
    ann.take()
    bob.take()
    assert everything(ann, pair.bob, limit=1) == everything(bob, pair.ann) == list("65431")


@pytest.mark.parametrize(("back", "shown"), [(0, "12:00:00.001"), (59, "12:00:00.001"), (61, "11:58:59.000")])
def test_d19_an_answer_has_the_time_of_the_clock(pair: Pair, back: int, shown: str) -> None:
    """A millisecond behind what it answers where a clock was put back a little; no wrong times for long where it was wrong by much."""
    ann, bob = pair.chatting("history")
    ann.msg(pair.bob, "0")
    bob.take()
    pair.world.clock.now = format_timestamp((NOON - back) * 1000)
    bob.msg(pair.ann, "1")
    assert ann.one("MSG")["timestamp"] == f"2024-01-01T{shown}Z"
    assert page(ann, pair.bob)[0] == ["1", "0"]


@given(
    said=st.text("ab", max_size=14),
    times=st.lists(st.integers(0, 3), min_size=14, max_size=14),
    far=st.booleans(),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_d14_every_limit_brings_everything_exactly_once(said: str, times: list[int], far: bool) -> None:
    """Whatever the clock did, page by page is the same as all at once, which is the order of writing; full pages but for the last."""
    pair = Pair(far, **UNLIMITED)
    ann, bob = talk(pair, said, times)
    for device, peer in ((ann, pair.bob), (bob, pair.ann)):
        whole = page(device, peer)[0]
        assert whole == newest_first(len(said))
        for limit in range(1, len(said) + 2):
            found = pages(device, peer, limit=limit)
            assert list(chain(*found)) == whole
            assert all(len(contents) == limit for contents in found[:-1])
            assert len(found[-1]) <= limit


def test_d14_what_is_written_meanwhile_does_not_disturb(pair: Pair) -> None:
    """A cursor stands for two positions, so pages neither shift nor repeat; the newest are there for who asks anew."""
    ann, bob = talk(pair, "abba")
    contents, following = page(ann, pair.bob, limit=1)
    seen = list(contents)
    pair.world.clock.now = b"2024-01-01T11:00:00.000Z"
    while following is not None:
        ann.msg(pair.bob, "new from Ann")
        bob.msg(pair.ann, "new from Bob")
        contents, following = page(ann, pair.bob, limit=1, before=following)
        seen += contents
    assert seen == newest_first(4)
    assert len(page(ann, pair.bob)[0]) == 10


def test_d14_one_who_had_written_nothing_yet_begins_meanwhile(pair: Pair) -> None:
    """A cursor from before the first message of the other side says that there was none."""
    ann, bob = talk(pair, "aaa")
    _, following = page(ann, pair.bob, limit=2)
    pair.world.clock.now = b"2024-01-01T11:00:00.000Z"
    bob.msg(pair.ann, "new")
    assert page(ann, pair.bob, before=following) == (["0"], None)


def test_d14_a_cursor_serves_again_and_on_any_device(pair: Pair) -> None:
    """It is no secret of the connection."""
    ann, _ = talk(pair, "abab")
    _, following = page(ann, pair.bob, limit=2)
    too = pair.come(pair.ann, "history")
    for device in (ann, too, ann):
        assert page(device, pair.bob, before=following) == (["1", "0"], None)


# -- How much --


def test_d14_fifty_unless_the_client_says_otherwise(far: bool) -> None:
    pair = Pair(far, **UNLIMITED)
    ann, _ = talk(pair, "ab" * 60)
    assert [len(contents) for contents in pages(ann, pair.bob)] == [50, 50, 20]
    assert HISTORY_DEFAULT == 50
    assert [len(contents) for contents in pages(ann, pair.bob, limit=100)] == [100, 20]
    assert everything(ann, pair.bob, limit=7) == newest_first(120)


@pytest.mark.parametrize(
    "letter",
    ["x", *(pytest.param(letter, marks=pytest.mark.slow) for letter in ("ü", "\U0001f600", "\\", '"', "\n"))],
)
@pytest.mark.parametrize("said", ["a", "b", "ab"])
def test_d14_an_answer_has_at_most_64_kib(far: bool, letter: str, said: str) -> None:
    """The whole text of it; as many as fit, but never fewer than that, and the rest on the pages behind."""
    pair = Pair(far, **UNLIMITED)
    ann, bob = pair.chatting("history")
    sizes: list[int] = []
    for number in range(110):
        content = f"{number}{letter * 990}."
        if said[number % len(said)] == "a":
            ann.msg(pair.bob, content)
        else:
            bob.msg(pair.ann, content)
    ann.take()
    seen: list[str] = []
    before: str | None = None
    while not sizes or before is not None:
        ann.say("HISTORY", **{"with": pair.bob, "limit": HISTORY_MAX, "before": before})
        sizes += [len(payload_of(frame)) for frame in ann._frames]
        answer = ann.one("HISTORY")
        seen += [message["content"] for message in answer["messages"]]
        before = answer["next"]
    assert len(seen) == len(set(seen)) == 110
    assert max(sizes) <= HISTORY_MAX_BYTES
    if letter != "x":
        assert all(size > HISTORY_MAX_BYTES - 5000 for size in sizes[:-1])


def test_d14_the_whole_answer_counts(far: bool) -> None:
    """Messages that would fill 64 KiB to the last bytes leave no room for what stands around them."""
    pair = Pair(far, **UNLIMITED)
    ann, bob = pair.chatting("history")
    ann.msg(pair.bob, "x", "10")
    bob.inbox.clear()
    ann.msg(pair.bob, "x", "11")
    around_content = len(payload_of(bob._frames[-1])) - len('{"type":"MSG","data":}') - len("x") + len(",")
    size = HISTORY_MAX_BYTES // 57
    assert HISTORY_MAX_BYTES % size < 64
    for number in range(20, 90):
        ann.msg(pair.bob, "x" * (size - around_content), f"{number}")
    ann.take()
    ann.say("HISTORY", **{"with": pair.bob, "limit": 100})
    assert len(payload_of(ann._frames[-1])) <= HISTORY_MAX_BYTES
    assert len(ann.one("HISTORY")["messages"]) == 56


# -- What is refused --


def test_history_needs_the_capability(pair: Pair) -> None:
    """And the refusal says which one."""
    ann, _ = pair.chatting()
    ann.say("HISTORY", **{"with": pair.bob})
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert "'history'" in error["message"]
    assert "HISTORY" not in error["details"]["expected"]
    ann.hello("Ann Lee", capabilities=["history"])
    assert page(ann, pair.bob) == ([], None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("with", None),
        ("with", "nobody"),
        ("with", 7),
        ("limit", 0),
        ("limit", 101),
        ("limit", -1),
        ("limit", 2.0),
        ("limit", True),
        ("limit", "10"),
        ("before", ""),
        ("before", 7),
        ("before", "7"),
        ("before", "1.2.3.4"),
        ("before", "-1.2"),
        ("before", "1.2 "),
        ("before", "\u0661.\u0662"),
        ("before", "1" * 16 + ".1"),
        ("before", ["1.2"]),
    ],
)
def test_d25_a_history_that_breaks_a_rule_is_refused(pair: Pair, field: str, value: object) -> None:
    ann, _ = talk(pair, "ab")
    ann.say("HISTORY", **{"with": pair.bob} | {field: value})
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == field
    assert error["details"]["type"] == "HISTORY"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("0.0", []),
        ("1.1", []),
        ("2.1", ["1"]),
        ("1.2", ["0"]),
        ("0.2", ["0"]),
        ("2.0", ["1"]),
        ("999999999999999.999999999999999", ["3", "2", "1", "0"]),
    ],
)
def test_d14_a_cursor_that_was_made_up_does_no_harm(pair: Pair, before: str, expected: list[str]) -> None:
    """It stands for the two positions that it says, whether or not they exist."""
    ann, _ = talk(pair, "abab")
    assert page(ann, pair.bob, before=before) == (expected, None)


def test_null_is_as_good_as_nothing(pair: Pair) -> None:
    """A client that sends all fields always."""
    ann, _ = talk(pair, "ab")
    assert page(ann, pair.bob, before=None, limit=None) == (["1", "0"], None)


def test_d9_history_needs_an_open_chat(pair: Pair) -> None:
    """With a stranger, with somebody who was never here, and with oneself."""
    ann, bob = pair.come(pair.ann, "history"), pair.come(pair.bob, "history")
    ann.take()
    for peer in (pair.bob, pair.cat, pair.ann):
        ann.say("HISTORY", **{"with": peer})
        error = ann.error()
        assert error["code"] == "CHAT_NOT_OPENED"
        assert error["details"] == {"type": "HISTORY", "field": "with"}
    bob.open_chat(pair.ann)
    ann.take()
    assert page(ann, pair.bob) == ([], None)


def test_d23_sixty_a_minute_per_user(pair: Pair) -> None:
    """All devices together; one that is refused is not counted."""
    ann, _ = pair.chatting("history")
    too = pair.come(pair.ann, "history")
    for number in range(60):
        page(too if number % 2 else ann, pair.bob)
        pair.world.pass_time(0.1)
    for _ in range(2):
        ann.say("HISTORY", **{"with": pair.bob})
        error = ann.error()
        assert error["code"] == "RATE_LIMITED"
        assert error["details"]["limit"] == 60
        assert error["details"]["window"] == 60
    ann.say("HISTORY", **{"with": pair.cat})
    assert ann.errors() == ["CHAT_NOT_OPENED"]
    pair.world.pass_time(error["details"]["retry_after"], step=error["details"]["retry_after"])
    assert page(ann, pair.bob) == ([], None)


def test_d23_zero_turns_the_history_limit_off(far: bool) -> None:
    pair = Pair(far, **UNLIMITED)
    ann, _ = pair.chatting("history")
    for _ in range(100):
        page(ann, pair.bob)


# -- In line --


def test_everything_in_one_go(pair: Pair) -> None:
    """HISTORY waits for HELLO, and for the chat that is being opened; not for another one."""
    pair.online(pair.bob, pair.cat)
    ann = pair.world.device(pair.ann)
    ann.hello("Ann Lee", settle=False, capabilities=["history"])
    ann.open_chat(pair.bob, settle=False)
    ann.say("HISTORY", False, **{"with": pair.bob})
    ann.say("HISTORY", False, **{"with": pair.cat})
    pair.world.settle()
    kinds = [kind for kind in ann.kinds() if kind != "PRESENCE"]
    assert kinds == ["HELLO_ACK", "ERROR", "CHAT_OPENED", "HISTORY"]
    assert ann.error()["code"] == "CHAT_NOT_OPENED"
