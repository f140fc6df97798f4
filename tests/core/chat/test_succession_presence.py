"""core.chat.succession: presence goes on in a successor."""

from __future__ import annotations

import pytest

from core.wire.protocol import PRESENCE_EVERYONE_MAX
from tests.core.stage import PRESENCE, SESSION, USER, Stage, needs

# -- Presence --


@needs(PRESENCE, "online")
def test_who_is_online_stays_online(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.world.pass_time(3.0, 0.5)
    stage.succeed(0, 1)
    stage.world.pass_time(8.0, 0.5)


@needs(PRESENCE, "leaving")
def test_the_grace_goes_on(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.leave()
    stage.world.pass_time(2.0)
    stage.succeed()
    stage.world.pass_time(8.0)


@needs(PRESENCE, "leaving")
def test_the_grace_of_a_user_of_another_worker_that_died_goes_on(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.world.kill(1)
    stage.world.pass_time(2.0)
    stage.succeed(0)
    stage.world.pass_time(8.0)


@needs(PRESENCE, "replicas")
def test_who_has_left_another_worker_unheard_does_not_stay(stage: Stage) -> None:
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


@needs(PRESENCE, "changed")
def test_who_came_just_now_is_told_to_all(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@needs(PRESENCE, "revision")
def test_what_came_later_is_told_to_who_gets_changes(stage: Stage) -> None:
    stage.chatting("presence_delta")
    stage.succeed()
    stage.come(stage.cat_id)
    stage.world.pass_time(3.0)


@needs(SESSION, "presence_revision")
def test_who_was_told_just_now_is_not_told_again(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.cat_id)
    stage.come(stage.bob_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@needs(SESSION, "presence_told")
def test_presence_comes_once_a_second(stage: Stage) -> None:
    stage.chatting()
    stage.come(stage.bob_id)
    stage.come(stage.cat_id)
    stage.succeed(0, 1)
    stage.world.pass_time(3.0)


@needs(SESSION, "presence_full")
def test_changes_are_told_as_changes(stage: Stage) -> None:
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


@needs(SESSION, "presence_changes", presence="contacts")
def test_changes_that_wait_are_told(stage: Stage) -> None:
    _contact_in_the_interval(stage)


@needs(SESSION, "presence_due", presence="contacts")
def test_who_is_to_be_told_is_told(stage: Stage) -> None:
    _contact_in_the_interval(stage)


@needs(USER, "present")
def test_who_is_here_is_told_of_others(stage: Stage) -> None:
    stage.chatting()
    stage.succeed()
    stage.come(stage.cat_id)
    stage.world.pass_time(8.0)


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
