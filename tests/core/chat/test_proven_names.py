"""Names from tokens (D34, D3): what the issuer calls a user is what everybody sees, whatever HELLO says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.auth.proof import Proof
from core.auth.tokens import SERVICE, TRIES, load_verifier
from core.process.settings import Settings
from core.wire.protocol import NAME_MAX, ErrorCode, Refusal
from core.wire.sanitize import is_visible, sanitize_name
from tests.core.proven import LATER, NOON, ProvenPair, names, token
from tests.core.token_forge import SECRET, forge

USER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
VERIFIER = load_verifier(Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0, workers=1), lambda path: b"")
#: What no name is: of a wrong type, without anything to be seen, and too long.
BAD_NAMES: list[Any] = [
    *(None, 7, True, ["Ann Lee"], {"first": "Ann"}),
    *("", "  ", "\u2063\u200b", "\u2800", "<b></b>", "\r\n", "x" * (NAME_MAX + 1), "<" + "i" * 50),
]


@pytest.fixture(params=[False, True], ids=["near", "far"])
def pair(request: pytest.FixtureRequest) -> ProvenPair:
    return ProvenPair(request.param)


def proven(**claims: Any) -> Proof:
    """What a token of the user with these claims proves."""
    assert VERIFIER is not None
    return VERIFIER.prove(forge({"sub": USER, "exp": LATER} | claims), USER, NOON)


# -- The claims --


@example(" A\u202ennb ")
@example("e\u0301")
@example("a<b>c</b>")
@example("x" * 51)
@example("\U0001f468\u200d\U0001f469\u200d\U0001f467")
@given(st.text(max_size=60))
def test_d34_a_name_is_cleaned_or_refused_and_never_left_out(text: str) -> None:
    """D16: what cleaning leaves has 1 to 50 characters, one of which can be seen, and cleaning it again changes nothing."""
    cleaned = sanitize_name(text)
    if 1 <= len(cleaned) <= NAME_MAX:
        name = proven(name=text).name
        assert name == cleaned == sanitize_name(cleaned)
        assert is_visible(cleaned)
        return
    with pytest.raises(Refusal) as caught:
        proven(name=text)
    assert (caught.value.code, caught.value.details["reason"]) == (ErrorCode.UNAUTHORIZED, "name")


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_d34_a_bad_name_is_refused_with_a_reason(name: Any) -> None:
    with pytest.raises(Refusal) as caught:
        proven(name=name)
    assert caught.value.code == ErrorCode.UNAUTHORIZED
    assert caught.value.details == {"field": "token", "reason": "name"}


def test_d34_a_name_of_one_character_is_enough() -> None:
    """A name in HELLO needs three: the issuer knows what people are called, and HELLO does not."""
    assert proven(name="\u674e").name == "\u674e"
    assert proven().name is None


@given(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.just(SERVICE)) | st.just(SERVICE))
def test_d34_only_one_role_gives_rights_and_no_other_is_refused(role: Any) -> None:
    assert proven(role=role).service is (role == SERVICE)


_PROOFS = st.builds(Proof, st.floats(1.0, 9.0), st.sampled_from([None, "Ann", "Bob"]), st.booleans())


@given(st.lists(_PROOFS, min_size=1))
def test_d34_no_claim_outlives_the_token_that_makes_it(shown: list[Proof]) -> None:
    """Whatever tokens a client shows, one after the other: what holds is what the last one claims, up to an end of a token that says so."""
    held = shown[0]
    for proof in shown[1:]:
        held = held.renewed(proof)
        assert (held.name, held.service) == (proof.name, proof.service)
        assert held.expires >= proof.expires
        assert held in shown, "the claims and the end are those of one token"


# -- What others see --


def test_d34_the_name_in_the_token_is_what_others_see(pair: ProvenPair) -> None:
    """In PRESENCE, in CHAT_OPENED for the one who opens the chat, and for the one with whom it is opened."""
    ann, bob = pair.prove(pair.ann, "Ann Lee", said="The Boss"), pair.prove(pair.bob, "B")
    pair.prove(pair.cat, "Cat Poe")
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "B"
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    assert names(bob) == {pair.ann: "Ann Lee", pair.bob: "B", pair.cat: "Cat Poe"}
    assert pair.world.store_of(pair.ann).records[pair.ann].user[0] == "Ann Lee"


def test_d3_d34_the_name_in_the_token_holds_in_another_hello(pair: ProvenPair) -> None:
    """With or without a token in it, as often as one likes."""
    ann, bob = pair.prove(pair.ann, "Ann Lee"), pair.prove(pair.bob)
    bob.take()
    for said in (None, token(pair.ann, name="Ann Lee"), None):
        ann.say("HELLO", user_id=pair.ann, display_name="The Boss", token=said)
        assert ann.take("HELLO_ACK")
        pair.world.pass_time(1.5)
        assert not bob.take("PRESENCE"), "nobody has another name"


def test_d34_a_renewed_token_brings_its_name(pair: ProvenPair) -> None:
    """Another one takes the place of the one before; without one, the name in HELLO holds again, and no longer that of the old token."""
    ann, bob = pair.prove(pair.ann, "Ann Lee"), pair.prove(pair.bob)
    ann.open_chat(pair.bob)
    for claims, said, name in (
        ({"name": "Ann Ray"}, "The Boss", "Ann Ray"),
        ({}, "Ann of old", "Ann of old"),
        ({"name": "A"}, "The Boss", "A"),
    ):
        ann.hello(said, token=token(pair.ann, **claims))
        assert names(bob)[pair.ann] == name
        pair.world.settle()
        assert pair.world.shard_of(pair.bob).users[pair.bob].chats[pair.ann].peer_name == name


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_d34_a_renewal_with_a_bad_name_changes_nothing(pair: ProvenPair, name: Any) -> None:
    """It is a HELLO without a valid token: three in a row end the connection (D5)."""
    ann, bob = pair.prove(pair.ann, "Ann Lee"), pair.prove(pair.bob)
    for number in range(TRIES):
        ann.hello("The Boss", token=token(pair.ann, name=name))
        error = ann.error()
        assert (error["code"], error["details"]["reason"]) == ("UNAUTHORIZED", "name")
        assert ann.open is (number < TRIES - 1)
    assert ann.closed == (1008, "no valid token in three tries")
    assert "The Boss" not in str(bob.inbox)


@pytest.mark.parametrize("said", ["", "ab", None, 7, "x" * 51])
def test_d34_the_name_in_hello_must_be_a_valid_one_all_the_same(pair: ProvenPair, said: Any) -> None:
    ann = pair.connect(pair.ann, Proof(LATER, "Ann Lee"))
    ann.say("HELLO", user_id=pair.ann, display_name=said)
    assert ann.error()["details"]["field"] == "display_name"
    ann.hello("Somebody")
    assert ann.take("HELLO_ACK")


def test_d34_who_has_a_short_name_can_be_written_to_by_that_name(pair: ProvenPair) -> None:
    """Clients say in OPEN_CHAT what PRESENCE has told them."""
    ann, _ = pair.prove(pair.ann), pair.prove(pair.bob, "B")
    ann.say("OPEN_CHAT", target_user_id=pair.bob, target_display_name=names(ann)[pair.bob])
    assert ann.one("CHAT_OPENED")["target_display_name"] == "B"
    ann.say("OPEN_CHAT", target_user_id=pair.bob, target_display_name="\u2063")
    assert ann.error()["details"]["limit"] == {"min": 1, "max": NAME_MAX}


def test_d34_each_connection_says_what_its_own_token_proves(pair: ProvenPair) -> None:
    """The user has the name of the last HELLO, as ever (D3): who gives one device a token with a name gives it to all."""
    first = pair.prove(pair.ann, "Ann Lee")
    pair.prove(pair.ann, None, said="Ann of old")
    assert names(first)[pair.ann] == "Ann of old"
    first.hello("The Boss")
    assert names(first)[pair.ann] == "Ann Lee"


# -- From one process to the next --


def test_d34_the_name_goes_on_in_a_successor_and_when_users_move(pair: ProvenPair) -> None:
    ann, bob = pair.prove(pair.ann, "Ann Lee"), pair.prove(pair.bob)
    pair.world.pass_time(8.0, 0.5)
    pair.world.succeed(0)
    ann.hello("The Boss")
    assert ann.take("HELLO_ACK")
    pair.world.pass_time(8.0, 0.5)
    pair.world.resize(3)
    ann.hello("The Boss")
    assert ann.take("HELLO_ACK")
    pair.world.pass_time(1.5)
    assert "The Boss" not in str(bob.inbox)
    assert pair.world.shard_of(pair.ann).users[pair.ann].display_name == "Ann Lee"


def test_d34_a_record_of_the_version_before_has_no_name(pair: ProvenPair) -> None:
    """Then the name in HELLO holds, until a token says another one."""
    ann = pair.prove(pair.ann, "Ann Lee")

    def older(taken: Any) -> None:
        for record, _ in taken:
            for session in record.get("sessions", []):
                assert session.pop("proven_name", "") == "Ann Lee" or session["claimed"] != pair.ann
                session.pop("service")

    pair.world.succeed(0, older)
    ann.hello("Ann of old")
    assert pair.world.shard_of(pair.ann).users[pair.ann].display_name == "Ann of old"
    ann.hello("Ann of old", token=token(pair.ann, name="Ann Lee"))
    assert pair.world.shard_of(pair.ann).users[pair.ann].display_name == "Ann Lee"
