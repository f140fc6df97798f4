"""core.wire.validation: the rules of each field (D1, D10, D16), and that a refusal says what was expected (D24)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.wire import validation
from core.wire.protocol import Refusal
from core.wire.validation import Validator

ID = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
#: What no field takes for a string.
NO_STRINGS = [None, True, 1, 1.5, [], ["x"], {}, {"x": 1}]


def refused(check: Callable[[], object]) -> dict[str, Any]:
    """The details of the refusal that must follow."""
    with pytest.raises(Refusal) as caught:
        check()
    assert caught.value.code == "VALIDATION"
    assert caught.value.message
    return caught.value.details


# -- D1 --


@given(st.uuids(version=4))
def test_d1_a_uuid4_is_taken_in_any_case_and_kept_in_lower_case(user_id: uuid.UUID) -> None:
    text = str(user_id)
    for spelling in (text, text.upper(), text.title()):
        assert Validator().user_id(spelling, "to") == text


@pytest.mark.parametrize(
    "value",
    [
        *NO_STRINGS,
        "",
        "test-123",
        ID.replace("-", ""),
        "{" + ID + "}",
        "urn:uuid:" + ID,
        ID + "\n",
        " " + ID,
        ID[:-1],
        ID + "0",
        ID.replace("-4a6b", "-1a6b"),
        ID.replace("-4a6b", "-5a6b"),
        ID.replace("-8c7d", "-cc7d"),
        ID.replace("-8c7d", "-0c7d"),
        ID.replace("0a", "0g"),
        ID.replace("0", "\uff10"),
        ID.replace("1", "\u0661"),
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_d1_anything_else_is_no_user_id(value: Any) -> None:
    """Only the canonical 8-4-4-4-12 form of version 4."""
    assert refused(lambda: Validator().user_id(value, "to")) == {"field": "to", "expected": "UUID v4"}


@pytest.mark.parametrize(
    "value",
    [
        *("test-123", "user-456", "A", "a.b_c-D9", ID, ID.upper()),
        *("auth0|5f7c8ec7c33c6c004bbafe82", "google-oauth2|103547991597142817347", "alice+work@example.com"),
        *("arn:aws:iam::1:user=x", "-0-", "x" * 128),
    ],
)
def test_d35_any_takes_the_ids_of_identity_providers_and_the_documents_own_examples(value: str) -> None:
    """As they are: no case is changed, and ids are compared byte for byte."""
    assert Validator("any").user_id(value, "to") == value


@pytest.mark.parametrize(
    "value",
    [
        *NO_STRINGS,
        *(
            "",
            "x" * 129,
            "a b",
            "a\n",
            "ä",
            "a/b",
            "a%b",
            "a#b",
            "a?b",
            "<b>",
            "a\0b",
            "\u0661",
            "a,b",
            "a;b",
        ),
        *("-", "..", "._-|@:+=", "\uff41"),
    ],
)
def test_d35_any_does_not_take_everything(value: Any) -> None:
    """Nothing without a letter or digit, and nothing that a URL's path or HTML gives a meaning."""
    details = refused(lambda: Validator("any").user_id(value, "user_id"))
    assert (details["field"], details["expected"][:6]) == ("user_id", "1-128 ")


@given(st.integers(0, 2**128 - 1))
def test_d35_uuid_takes_all_versions_and_keeps_lower_case(number: int) -> None:
    """Version 7, say, or the nil UUID."""
    text = str(uuid.UUID(int=number))
    assert Validator("uuid").user_id(text.upper(), "to") == text


@pytest.mark.parametrize(
    "value", [*NO_STRINGS, "", "test-123", ID.replace("-", ""), "{" + ID + "}", ID + "\n"]
)
def test_d35_uuid_takes_the_canonical_form_only(value: Any) -> None:
    assert refused(lambda: Validator("uuid").user_id(value, "to")) == {"field": "to", "expected": "UUID"}


def test_d1_the_default_is_uuid4() -> None:
    refused(lambda: Validator().user_id("test-123", "to"))
    assert Validator("uuid4").user_id(ID, "to") == ID


# -- D10 --


@given(
    st.text(max_size=70)
    | st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=70)
)
def test_d10_a_message_id_is_visible_ascii_without_what_html_gives_a_meaning(value: str) -> None:
    """1-64 of them; it is kept as it is."""
    if 1 <= len(value) <= 64 and all(
        "!" <= character <= "~" and character not in "<>&\"'" for character in value
    ):
        assert validation.message_id(value) == value
    else:
        assert refused(lambda: validation.message_id(value))["field"] == "message_id"


def test_d10_every_single_character_is_judged_by_the_rule() -> None:
    allowed = {chr(code) for code in range(0x21, 0x7F)} - set("<>&\"'")
    for code in range(0x250):
        if chr(code) in allowed:
            assert validation.message_id(chr(code)) == chr(code)
        else:
            refused(lambda code=code: validation.message_id(chr(code)))  # type: ignore[misc]


@pytest.mark.parametrize("value", NO_STRINGS)
def test_d10_a_message_id_is_a_string(value: Any) -> None:
    refused(lambda: validation.message_id(value))


# -- D16 --


@pytest.mark.parametrize("unit", ["x", "ä", "\U0001f468", "\u0301", "<"])
def test_d16_content_is_counted_in_code_points(unit: str) -> None:
    """1 to 1000, whatever they take in bytes or look like."""
    assert validation.content(unit) == unit
    assert validation.content(unit * 1000) == unit * 1000
    details = refused(lambda: validation.content(unit * 1001))
    assert details == {"field": "content", "limit": {"min": 1, "max": 1000}, "length": 1001}


@pytest.mark.parametrize("value", ["", "<b></b>", "\x00\x01", "<!-- hidden -->", "<script>alert(1)</script>"])
def test_d16_content_of_which_nothing_is_left_is_refused(value: str) -> None:
    """Length is counted after sanitising."""
    assert refused(lambda: validation.content(value))["length"] == 0


@pytest.mark.parametrize("value", [" ", "\n\t", "\u200b", "\u3164 \ufeff", "<b>\u00ad</b>", "\u2800", "\x7f"])
def test_d16_content_of_which_nothing_is_visible_is_refused(value: str) -> None:
    details = refused(lambda: validation.content(value))
    assert details == {"field": "content", "expected": "at least one visible character"}
    assert validation.content(value + ".")


def _refused_name(value: str) -> dict[str, Any]:
    return refused(lambda: validation.display_name(value, "display_name"))


@pytest.mark.parametrize(
    "unit", ["\u200b", "\u3164", "\u2060", "\u2800", "\u200d", "\U000e0041", "\ufe0f", "\u00a0"]
)
def test_d16_a_name_of_which_nothing_is_visible_is_refused(unit: str) -> None:
    for value in (unit * 3, f"  {unit * 40} {unit} "):
        assert _refused_name(value)["field"] == "display_name"
    assert validation.display_name(f"{unit}Bobby{unit}", "display_name") == "Bobby"
    assert _refused_name(f"a {unit}")["length"] == 1


def test_d16_inserted_spaces_do_not_count_in_content_and_do_in_names() -> None:
    assert validation.content("<a" * 500) == "< a" * 500
    assert refused(lambda: validation.content("<a" * 500 + "."))["length"] == 1001
    assert validation.display_name("<a" * 16, "display_name") == "< a" * 16
    assert refused(lambda: validation.display_name("<a" * 17, "display_name"))["length"] == 51


def test_d16_what_is_removed_does_not_count() -> None:
    assert validation.content("<b>" * 400 + "x" * 1000 + "\0") == "x" * 1000
    assert validation.display_name("<i>" + "x" * 50 + "</i>", "display_name") == "x" * 50


@pytest.mark.parametrize("text", ["a < b && c", "I <3 you", "x > y", "&lt;b&gt;", "  kept  ", "\ttab\nline"])
def test_d16_text_that_is_no_markup_is_untouched(text: str) -> None:
    assert validation.content(text) == text


@pytest.mark.parametrize("value", ["Ann", "x" * 50, "\U0001f468" * 3, "  Ann  ", "<b>Ann</b>", "A\u030ann"])
def test_d16_a_name_has_three_to_fifty_code_points(value: str) -> None:
    """Trimmed and in NFC."""
    name = validation.display_name(value, "display_name")
    assert 3 <= len(name) <= 50
    assert name == name.strip()


@pytest.mark.parametrize(
    "value", ["", "An", "   An   ", "x" * 51, "<b>An</b>", "A\u030an", "\u202e\u202e\u202e"]
)
def test_d16_a_name_of_another_length_is_refused(value: str) -> None:
    """Counted after sanitising, trimming and normalising."""
    details = refused(lambda: validation.display_name(value, "target_display_name"))
    assert details["field"] == "target_display_name"
    assert details["limit"] == {"min": 3, "max": 50}
    assert not 3 <= details["length"] <= 50


@pytest.mark.parametrize("value", NO_STRINGS)
def test_d25_texts_are_strings(value: Any) -> None:
    assert refused(lambda: validation.content(value)) == {"field": "content", "expected": "string"}
    assert refused(lambda: validation.display_name(value, "display_name")) == {
        "field": "display_name",
        "expected": "string",
    }


# -- The rest --


@pytest.mark.parametrize("value", [True, False])
def test_is_typing_is_a_boolean(value: bool) -> None:
    assert validation.is_typing(value) is value


@pytest.mark.parametrize("value", [None, 0, 1, "true", "", [], {}])
def test_d25_is_typing_is_nothing_else(value: Any) -> None:
    assert refused(lambda: validation.is_typing(value)) == {"field": "is_typing", "expected": "boolean"}


def test_a_hello_is_checked_and_cleaned_as_a_whole() -> None:
    hello = Validator().hello({"user_id": ID.upper(), "display_name": " <b>Ann</b> ", "colour": "blue"})
    assert hello == (ID, "Ann", None, None)


@pytest.mark.parametrize(
    ("asked", "in_force"),
    [
        ([], []),
        (["presence_delta"], ["presence_delta"]),
        (["time_travel", "presence_delta", "presence_delta", ""], ["presence_delta"]),
    ],
)
def test_unknown_capabilities_are_ignored(asked: list[str], in_force: list[str]) -> None:
    hello = Validator().hello({"user_id": ID, "display_name": "Ann", "capabilities": asked})
    assert hello.capabilities == in_force


@pytest.mark.parametrize("asked", ["presence_delta", 1, {}, [1], ["presence_delta", None], [["x"]], True])
def test_d25_capabilities_are_a_list_of_strings(asked: Any) -> None:
    data = {"user_id": ID, "display_name": "Ann", "capabilities": asked}
    assert refused(lambda: Validator().hello(data))["field"] == "capabilities"


@pytest.mark.parametrize(("missing", "field"), [("user_id", "user_id"), ("display_name", "display_name")])
def test_d25_a_hello_without_a_field_says_which(missing: str, field: str) -> None:
    data = {"user_id": ID, "display_name": "Ann"}
    del data[missing]
    assert refused(lambda: Validator().hello(data))["field"] == field


def test_d24_a_refusal_does_not_echo_more_than_it_needs() -> None:
    """16 KiB in a field must not come back as 16 KiB."""
    with pytest.raises(Refusal) as caught:
        Validator().user_id("x" * 10_000, "to")
    assert len(caught.value.message) < 200
