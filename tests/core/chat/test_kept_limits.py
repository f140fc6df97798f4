"""core.chat.kept_limits: what counts against limits, from one process to the next, whatever the clocks do meanwhile (D23)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.kept_limits import Moment, ages_of, decode, encode, merge, times_of
from core.chat.ratelimit import SlidingWindow
from core.wire.protocol import RATE_WINDOW, UNLOAD_CHATLESS_AFTER
from tests.core.pair import Pair

BOOT = "7d1c0a52-0000-4000-8000-000000000001"
STOPPED = Moment(BOOT, 1000.0, 1_700_000_000.0)
AGES = st.lists(st.floats(0, 59.9), max_size=8).map(lambda ages: sorted(ages, reverse=True))


def restarted(pair: Pair, stopped_for: float = 0.0, again: float = 0.0) -> None:
    """Every worker ends in order, and another process takes its place some seconds later."""
    for shard in pair.world.shards:
        for device in list(pair.world.devices):
            if device.open and pair.world.shard_of(device.user_id) is shard:
                device.session.close(1012, "restarting", pair.world.now)
    now = pair.world.now
    kept = [
        {name: ages_of(times, now) for name, times in shard.users.idle.counted(now)}
        for shard in pair.world.shards
    ]
    pair.world.now += stopped_for
    for index, users in enumerate(kept):
        pair.world.restart(index)
        later = Moment(BOOT, STOPPED.uptime + stopped_for, again)
        for user_id, ages in merge([decode(encode(users, STOPPED))], later).items():
            pair.world.shards[index].users.idle.remember(user_id, times_of(ages, pair.world.now))


# -- All windows --


@pytest.mark.parametrize("kind", ["MSG", "TYPING", "OPEN_CHAT", "HELLO", "HISTORY"])
def test_d23_the_windows_survive_an_orderly_restart(far: bool, kind: str) -> None:
    """Two are allowed in any 60 s: after a restart of 20 s, one more at 60 s behind the first, not before."""
    names = {
        "MSG": "messages",
        "TYPING": "typing",
        "OPEN_CHAT": "open_chats",
        "HELLO": "hellos",
        "HISTORY": "history",
    }
    limit = 4 if kind == "HELLO" else 2
    pair = Pair(far, **{f"{names[kind]}_per_minute": limit})

    def say(device: object) -> list[str]:
        match kind:
            case "MSG":
                ann.msg(pair.bob)
            case "TYPING":
                ann.typing()
            case "OPEN_CHAT":
                ann.open_chat(pair.bob)
            case "HELLO":
                ann.hello("Ann Lee", capabilities=["history"])
            case "HISTORY":
                ann.say("HISTORY", **{"with": pair.bob})
        return ann.errors()

    ann, _ = pair.chatting("history")
    used = 1 if kind in ("OPEN_CHAT", "HELLO") else 0
    began = pair.world.now
    for _ in range(limit - 1 - used - (1 if kind == "HELLO" else 0)):
        assert say(ann) == []
    pair.world.pass_time(5.0)
    assert say(ann) == []
    restarted(pair, 20.0)
    ann = pair.come(pair.ann, "history")
    ann.take()
    assert say(ann) == ["RATE_LIMITED"]
    restarted(pair, 1.0)
    pair.world.pass_time(began + RATE_WINDOW - 1.0 - pair.world.now)
    if kind != "HELLO":
        ann = pair.come(pair.ann, "history")
        ann.take()
        assert say(ann) == ["RATE_LIMITED"], "after two restarts as well"
        pair.world.pass_time(1.5)
        assert say(ann) == []
        assert say(ann) == ["RATE_LIMITED"]


def test_d23_who_has_not_been_back_is_not_forgotten_by_a_second_restart() -> None:
    pair = Pair(far=False, messages_per_minute=1)
    ann, _ = pair.chatting()
    ann.msg(pair.bob)
    for _ in range(3):
        restarted(pair, 10.0)
    ann = pair.come(pair.ann)
    ann.take()
    ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"]


def test_d23_who_had_left_memory_is_kept_too() -> None:
    """A user without a chat leaves it within seconds."""
    pair = Pair(far=False, hellos_per_minute=1)
    (ann,) = pair.online(pair.ann)
    ann.leave()
    pair.world.pass_time(UNLOAD_CHATLESS_AFTER + 1)
    assert pair.ann not in pair.world.shard_of(pair.ann).users
    restarted(pair, 1.0)
    assert pair.come(pair.ann).errors() == ["RATE_LIMITED"]


def test_d23_what_counts_no_more_is_not_kept() -> None:
    assert ages_of([[900.0, 941.0], [], [999.5]], 1000.0) == [[59.0], [], [0.5]]


def test_a_file_of_a_version_with_other_limits_counts_as_far_as_it_goes() -> None:
    for windows in ([[5.0]], [[5.0], [], [], [], [], [], [], [3.0]]):
        pair = Pair(far=False, messages_per_minute=1)
        pair.world.shards[0].users.idle.remember(pair.ann, times_of(windows, pair.world.now))
        ann, _ = pair.chatting()
        ann.msg(pair.bob)
        assert ann.errors() == ["RATE_LIMITED"]


# -- Clocks --


@given(ages=AGES, wall=st.floats(-2e9, 4e9), stopped_for=st.floats(0, 100))
def test_d23_a_clock_that_is_set_meanwhile_changes_nothing(
    ages: list[float], wall: float, stopped_for: float
) -> None:
    """As long as the machine ran, its uptime says how long ago it was."""
    now = Moment(BOOT, STOPPED.uptime + stopped_for, wall)
    ((kept,),) = merge([decode(encode({"ann": [ages]}, STOPPED))], now).values()
    assert kept == pytest.approx(
        [age + stopped_for for age in ages if age + stopped_for < RATE_WINDOW], abs=1e-6
    )


@given(
    ages=AGES,
    boot=st.sampled_from([BOOT, "", "another"]),
    uptime=st.floats(0, 2000),
    wall=st.floats(-2e9, 4e9),
)
def test_d23_no_clock_locks_anybody_out_for_longer_than_the_window(
    ages: list[float], boot: str, uptime: float, wall: float
) -> None:
    """Forward, back, 1970, after a restart of the machine: a window ends within its length, and holds nothing that did not happen."""
    kept = merge([decode(encode({"ann": [ages]}, STOPPED))], Moment(boot, uptime, wall)).get("ann", [[]])[0]
    assert len(kept) <= len(ages)
    window = SlidingWindow(1)
    for time in times_of([kept], 5000.0)[0]:
        window.count(time)
    assert window.retry_after(5000.0) <= RATE_WINDOW
    assert all(new >= old - 1e-6 for new, old in zip(reversed(kept), reversed(ages), strict=False))


def test_d23_of_two_files_that_know_a_user_the_later_one_counts() -> None:
    """It includes what the earlier one said: nothing counts twice."""
    earlier, later = STOPPED, Moment(BOOT, STOPPED.uptime + 10.0, STOPPED.wall)
    now = Moment(BOOT, STOPPED.uptime + 11.0, 0.0)
    files = [(later, {"ann": [[14.0, 2.0]]}), (earlier, {"ann": [[4.0]], "bob": [[1.0]]})]
    assert merge(files, now) == {"ann": [[15.0, 3.0]], "bob": [[12.0]]}
    assert merge(reversed(files), now) == merge(files, now)


# -- Files --


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format":2,"boot":"","uptime":1,"wall":1,"users":{}}',
        b'{"format":1,"boot":"","uptime":1,"wall":1}',
        b'{"format":1,"boot":7,"uptime":1,"wall":1,"users":{}}',
        b'{"format":1,"boot":"","uptime":true,"wall":1,"users":{}}',
        b'{"format":1,"boot":"","uptime":1,"wall":null,"users":{}}',
        b'{"format":1,"boot":"","uptime":1,"wall":1,"users":[]}',
        b'{"format":1,"boot":"","uptime":1,"wall":1,"users":{"ann":5}}',
        b'{"format":1,"boot":"","uptime":1,"wall":1,"users":{"ann":[5]}}',
        b'{"format":1,"boot":"","uptime":1,"wall":1,"users":{"ann":[["1"]]}}',
    ],
)
def test_what_is_damaged_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(content)
