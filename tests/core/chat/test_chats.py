"""core.chat.chats: opening chats, and the names in them (D7, D8)."""

from __future__ import annotations

import uuid

import pytest

from core.chat.chat import Chat, chat_id
from tests.core.pair import Pair
from tests.core.world import World


def test_d7_opening_a_chat_tells_all_devices_of_both(pair: Pair) -> None:
    """Each side is told about the *other* person, under the same chat id and with the same two participants."""
    ann, ann_too, bob, bob_too = pair.online(pair.ann, pair.ann, pair.bob, pair.bob)
    ann.open_chat(pair.bob)
    seen_by_ann, seen_by_bob = ann.one("CHAT_OPENED"), bob.one("CHAT_OPENED")
    assert ann_too.one("CHAT_OPENED") == seen_by_ann
    assert bob_too.one("CHAT_OPENED") == seen_by_bob
    assert seen_by_ann == {
        "chat_id": chat_id(pair.ann, pair.bob),
        "participants": sorted([pair.ann, pair.bob]),
        "target_user_id": pair.bob,
        "target_display_name": "Bob Ray",
    }
    assert seen_by_bob == seen_by_ann | {"target_user_id": pair.ann, "target_display_name": "Ann Lee"}


def test_d7_a_chat_id_is_a_uuid5_of_the_sorted_pair_and_never_changes() -> None:
    """A chat id that changed with a release would split every conversation in two."""
    ann, bob = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    assert chat_id(ann, bob) == chat_id(bob, ann) == "e0652d6a-05a7-5fec-8079-6c810287f5f2"
    assert uuid.UUID(chat_id(ann, bob)).version == 5
    assert chat_id(ann, bob) != chat_id(ann, ann.replace("1", "3"))


def test_d7_every_pair_of_ids_has_a_chat_id_of_its_own() -> None:
    """Ids may have a colon (D35), which joins those that were possible before it; these keep their chat ids."""
    assert chat_id("a", "b") == "50d8ae3b-5aac-54fd-9f44-65fec95a7772"
    assert chat_id("test-123", "user.456_x") == chat_id("user.456_x", "test-123")
    assert chat_id("a", "b:c") != chat_id("a:b", "c")
    assert chat_id("a:b", "c:d") != chat_id("a", "b:c:d")
    names = ["a", "b", "c", "a:b", "b:c", "a:b:c", "x" * 64, "x" * 65, "auth0|1", "x@y.zz", "+=", "a.b"]
    pairs = [(first, second) for first in names for second in names if first < second]
    assert len({chat_id(*pair) for pair in pairs}) == len(pairs)


def test_d7_opening_again_answers_only_the_asking_connection(pair: Pair) -> None:
    """From either side; the other person and one's other devices know already."""
    ann, ann_too, bob = pair.online(pair.ann, pair.ann, pair.bob)
    ann.open_chat(pair.bob)
    first = ann.one("CHAT_OPENED")
    ann_too.take()
    bob.take()
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED") == first
    assert not ann_too.inbox
    assert not bob.inbox
    bob.open_chat(pair.ann)
    assert bob.one("CHAT_OPENED")["chat_id"] == first["chat_id"]
    assert not ann.inbox
    assert not ann_too.inbox


def test_d7_both_opening_at_once_open_one_chat(pair: Pair) -> None:
    """Everybody is told, nobody is told about two chats."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob, settle=False)
    bob.open_chat(pair.ann, settle=False)
    pair.world.settle()
    opened = ann.take("CHAT_OPENED") + bob.take("CHAT_OPENED")
    assert {chat["chat_id"] for chat in opened} == {chat_id(pair.ann, pair.bob)}
    ann.msg(pair.bob)
    bob.msg(pair.ann)
    assert len(ann.take("MSG")) == len(bob.take("MSG")) == 1


def test_d7_the_target_keeps_the_chat_first_then_the_opener(pair: Pair) -> None:
    """Whatever dies on the way, a chat that somebody was told about is on both sides or can be repaired."""
    world = pair.world
    ann, bob = pair.online(pair.ann, pair.bob)
    target_store = world.stores[world.placement.worker_of(pair.bob)]
    target_store.slow = True
    ann.open_chat(pair.bob)
    assert pair.bob not in world.shard_of(pair.ann).users[pair.ann].chats
    assert not ann.inbox
    assert not bob.inbox, "nobody is told before it is durable"
    target_store.slow = False
    if pair.far:
        world.stores[0].slow = True
        world.settle()
        assert target_store.committed[-1] is world.shard_of(pair.bob).users[pair.bob].chats[pair.ann]
        assert not ann.inbox
        assert not bob.inbox, "the opener's side comes second, and CHAT_OPENED after both"
        world.stores[0].slow = False
    world.settle()
    chats = [write for write in target_store.committed if isinstance(write, Chat)]
    assert chats[0].peer == pair.ann
    assert ann.kinds() == bob.kinds() == ["CHAT_OPENED"]


@pytest.mark.parametrize("failing", ["target", "opener"])
def test_d7_d26_a_chat_that_a_store_can_not_take_is_not_opened(pair: Pair, failing: str) -> None:
    """The opener is told to try again, nobody is shown a chat, and the next attempt works."""
    world = pair.world
    ann, bob = pair.online(pair.ann, pair.bob)
    store = world.stores[world.placement.worker_of(pair.bob if failing == "target" else pair.ann)]
    store.failure = "disk full"
    ann.open_chat(pair.bob)
    assert ann.error()["code"] == "MESSAGE_FAILED"
    assert not bob.inbox
    store.failure = None
    if failing == "target":
        bob.msg(pair.ann)
        assert bob.errors() == ["CHAT_NOT_OPENED"]
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_user_id"] == pair.bob
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann


def test_d9_a_chat_that_is_being_kept_is_not_open_yet(pair: Pair) -> None:
    """Another device of the opener writes too early; the store fails for the chat, which leaves nothing in the way of the next attempt."""
    world = pair.world
    ann, ann_too, bob = pair.online(pair.ann, pair.ann, pair.bob)
    store = world.store_of(pair.bob)
    store.slow = True
    ann.open_chat(pair.bob)
    ann_too.msg(pair.bob, "Did it work?", "1")
    ann_too.open_chat(pair.bob)
    store.slow = False
    store.fail_next = 1
    world.settle()
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert ann_too.errors() == ["CHAT_NOT_OPENED"]
    assert ann_too.one("CHAT_OPENED")["target_user_id"] == pair.bob
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann
    ann_too.msg(pair.bob, "Did it work?", "1")
    assert ann_too.statuses() == [("1", "delivered")]


def test_d7_a_chat_stays_open_across_reconnects(pair: Pair) -> None:
    """For both sides: nobody has to open it again."""
    for device in pair.chatting():
        device.leave()
    pair.world.pass_time(60, step=1)
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.msg(pair.bob, "Still here?")
    bob.msg(pair.ann, "Of course.")
    assert bob.contents() == ["Still here?"]
    assert ann.contents() == ["Of course."]


def test_d7_what_was_opened_while_the_target_was_away_is_told_at_the_next_hello(pair: Pair) -> None:
    """Before that chat's messages; once it was read, a second device has nothing new to learn."""
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob)
    ann.msg(pair.bob, "Are you there?")
    bob = pair.world.device(pair.bob).hello()
    assert bob.kinds() == ["HELLO_ACK", "PRESENCE", "CHAT_OPENED", "MSG"]
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann
    bob.answer_those_that_came()
    assert "CHAT_OPENED" not in pair.world.device(pair.bob).hello().kinds()
    bob.leave()
    assert "CHAT_OPENED" not in pair.world.device(pair.bob).hello().kinds()


def test_d7_a_hello_between_the_two_commits_is_told_once(pair: Pair) -> None:
    """The target comes back while the opener's side is still being kept."""
    world = pair.world
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob, settle=False)
    world.turn(0)
    world.carry(0, 1)
    world.turn(1)
    bob = world.device(pair.bob).hello()
    assert bob.kinds().count("CHAT_OPENED") == 1
    assert ann.kinds().count("CHAT_OPENED") == 1


def test_d7_names_are_those_that_the_person_gave_last(pair: Pair) -> None:
    """Not what the opener calls the target, and not an older name: after a rename while the other is away, too."""
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.say("OPEN_CHAT", target_user_id=pair.bob, target_display_name="My Bobby")
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"
    ann.hello("Ann Smith")
    bob = pair.world.device(pair.bob).hello("Robert")
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Smith"
    ann.take()
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Robert"
    ann.leave()
    bob.hello("Bob Again")
    ann = pair.world.device(pair.ann).hello("Ann Third")
    bob.take()
    bob.open_chat(pair.ann)
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Third"


def test_d7_a_rename_reaches_every_chat_at_once(pair: Pair) -> None:
    """Before anybody opens the chat again: the other side's record has the name."""
    ann, _bob = pair.chatting()
    ann.hello("Ann Smith")
    assert pair.world.shard_of(pair.bob).users[pair.bob].chats[pair.ann].peer_name == "Ann Smith"


def test_d7_opening_again_brings_a_name_whose_news_were_lost() -> None:
    """The way between the workers was full when the names changed; after the next OPEN_CHAT both sides have the last ones."""
    pair = Pair(True)
    ann, bob = pair.chatting()
    pair.world.refusing.update((0, 1))
    ann.hello("Ann Smith")
    bob.hello("Robert")
    pair.world.refusing.clear()
    ann.take()
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Robert"
    assert pair.world.shards[1].users[pair.bob].chats[pair.ann].peer_name == "Ann Smith"


def test_d7_a_message_is_proof_and_repairs_the_recipients_side() -> None:
    """Bob's worker lost its store and knows of no chat; Ann's does, so her message goes through, and Bob is told about the chat first."""
    pair = Pair(True)
    ann, _ = pair.chatting()
    pair.world.restart(1, lost=True)
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    bob.take()
    ann.msg(pair.bob, "You there?")
    assert bob.kinds() == ["CHAT_OPENED", "MSG"]
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    bob.msg(pair.ann, "Back.")
    assert ann.contents() == ["Back."]


def test_d7_a_message_is_proof_and_repairs_the_senders_side() -> None:
    """Bob's worker lost its store; what Bob writes goes through since Ann's worker knows the chat, and Bob's side knows it again."""
    pair = Pair(True)
    ann, _ = pair.chatting()
    pair.world.restart(1, lost=True)
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    bob.take()
    bob.msg(pair.ann, "I am back.")
    assert ann.contents() == ["I am back."]
    assert bob.kinds() == ["CHAT_OPENED", "MSG_ACK"]
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    bob.take()
    bob.typing()
    assert ann.typists() == [(pair.bob, True)]


def test_d7_a_repaired_chat_has_the_name_even_when_everything_comes_at_once() -> None:
    """Ann is back after Bob's worker lost its store, and sends HELLO and MSG in one go: the name must not lag behind the message."""
    pair = Pair(True)
    ann, _ = pair.chatting()
    ann.leave()
    pair.world.restart(1, lost=True)
    bob = pair.world.device(pair.bob).hello()
    pair.world.pass_time(10)
    bob.take()
    ann = pair.world.device(pair.ann).hello("Ann Lee", settle=False)
    ann.msg(pair.bob, "Me again.", settle=False)
    pair.world.settle()
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    assert bob.contents() == ["Me again."]


def test_d7_a_chat_opened_by_a_shard_that_died_is_told_and_works() -> None:
    """The target's side was kept, then the opener's worker died: the target learns of it at HELLO, and its message repairs the rest."""
    pair = Pair(True)
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob, settle=False)
    pair.world.turn(0)
    pair.world.carry(0, 1)
    pair.world.turn(1)
    pair.world.restart(0)
    ann = pair.world.device(pair.ann).hello("Ann Lee")
    ann.take()
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann
    bob.msg(pair.ann, "You called?")
    assert ann.kinds() == ["CHAT_OPENED", "MSG"]


def test_d8_a_target_that_was_never_seen(pair: Pair) -> None:
    """There is nobody to open a chat with; the other side keeps nothing."""
    (ann,) = pair.online(pair.ann)
    ann.open_chat(pair.bob)
    error = ann.error()
    assert error["code"] == "USER_NOT_FOUND"
    assert error["details"] == {"type": "OPEN_CHAT", "field": "target_user_id"}
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    (bob,) = pair.online(pair.bob)
    ann.open_chat(pair.bob)
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann


def test_d8_a_target_that_is_known_but_offline_is_found(pair: Pair) -> None:
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"


def test_d8_a_target_whom_only_the_store_knows_is_found(pair: Pair) -> None:
    """Whoever was here, however long ago, is not a stranger."""
    (ann,) = pair.online(pair.ann)
    pair.world.device(pair.bob).hello("Bob of Old").leave()
    owner = pair.world.shard_of(pair.bob)
    pair.world.pass_time(130, step=10)
    assert pair.bob not in owner.users, "nobody of that id is in memory"
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob of Old"


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_d8_a_chat_with_oneself_is_refused(spelling: type[str]) -> None:
    """In whatever case the id is written (D1)."""
    world = World(1)
    user = world.user_on(0)
    ann = world.device(user).hello()
    ann.take()
    ann.open_chat(spelling(user))
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == "target_user_id"


@pytest.mark.parametrize("missing", ["target_user_id", "target_display_name"])
def test_d25_open_chat_needs_both_fields(pair: Pair, missing: str) -> None:
    """As docs/protocol.md says, although only one of them decides anything."""
    ann, _ = pair.online(pair.ann, pair.bob)
    fields = {"target_user_id": pair.bob, "target_display_name": "Bob Ray"}
    del fields[missing]
    ann.say("OPEN_CHAT", **fields)
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == missing


def test_d18_open_chat_keeps_its_place_in_line(pair: Pair) -> None:
    """HELLO, OPEN_CHAT, MSG and TYPING in one go work as if the client had waited for each answer."""
    (bob,) = pair.online(pair.bob)
    ann = pair.world.device(pair.ann).hello("Ann Lee", settle=False)
    ann.open_chat(pair.bob, settle=False)
    ann.msg(pair.bob, "one", "1", settle=False)
    ann.msg(pair.bob, "two", "2", settle=False)
    ann.typing(settle=False)
    pair.world.settle()
    assert ann.kinds() == ["HELLO_ACK", "PRESENCE", "CHAT_OPENED", "MSG_ACK", "MSG_ACK"]
    assert ann.statuses() == [("1", "delivered"), ("2", "delivered")]
    assert bob.typists()[-1:] == [(pair.ann, True)], "who types after the last message is shown as typing"
    assert bob.kinds() == ["CHAT_OPENED", "MSG", "MSG"]
    assert bob.contents() == ["one", "two"]


def test_a_client_that_leaves_while_its_chat_is_opened_leaves_nothing_behind(pair: Pair) -> None:
    """The chat is open all the same; the other side is told."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob, settle=False)
    ann.msg(pair.bob, settle=False)
    ann.leave()
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann
    assert pair.world.device(pair.ann).hello().one("CHAT_OPENED")["target_user_id"] == pair.bob
