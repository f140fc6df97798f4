"""core.wire.sanitize against D16: controls, names, and what is visible. What markup is has ``tests.core.wire.test_markup``."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Final

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from core.wire.protocol import NAME_MAX
from core.wire.sanitize import is_visible, sanitize_name, sanitize_text
from core.wire.unicode_tables import DEFAULT_IGNORABLE, NONCHARACTERS, PICTOGRAPHIC
from tests.core.html_parsers import assert_no_markup
from tests.core.lines_run import lines_run
from tests.core.markup_floods import FLOODS, repeated

ZWNJ, ZWJ = "\u200c", "\u200d"
FAMILY: Final = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SCOTLAND: Final = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"

# -- Controls --


def test_d16_c0_controls_are_removed_from_content_but_tab_and_line_feed() -> None:
    assert sanitize_text("".join(map(chr, range(0x21)))) == "\t\n\n "
    assert sanitize_text("a\0b\x1bc\x0bd\x0ce") == "abcde"
    assert sanitize_text("\x7f\x80\x85\x9b") == "\x7f\x80\x85\x9b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\r\r\nb", "a\n\nb"),
        ("a\r\0\nb", "a\nb"),
    ],
)
def test_d16_every_line_break_becomes_a_line_feed(text: str, expected: str) -> None:
    assert sanitize_text(text) == expected


@pytest.mark.parametrize(
    "text", ["<\x00script>x</script>", "<scr\x1fipt>x</script>", "<!\x07--x-->", "<b\rx='>'>"]
)
def test_d16_controls_go_before_markup_so_that_they_cannot_hide_it(text: str) -> None:
    assert sanitize_text(text) == ""
    assert sanitize_name(text) == ""


# -- What is visible --


@pytest.mark.parametrize(
    "visible", ["a", "\u0301", "<", "\U0001f468", "\ue000", "\u0378", ".", "\ufffd", "\ufffc"]
)
def test_d16_what_shows_something_is_visible(visible: str) -> None:
    assert is_visible(visible)
    assert is_visible(f"\u200b \u3164{visible}\n")


@pytest.mark.parametrize(
    "hidden",
    [
        *("", " ", "\t\n", "\u00a0", "\u3000", "\u2003", "\u1680", "\u2028", "\x85"),
        *(
            "\u200b",
            "\u200c",
            "\u200d",
            "\u2060",
            "\ufeff",
            "\u00ad",
            "\u034f",
            "\u061c",
            "\u202e",
            "\u2066",
            "\u180e",
        ),
        *(
            "\u3164",
            "\u115f",
            "\u1160",
            "\uffa0",
            "\u2800",
            "\u17b4",
            "\ufe0f",
            "\ufe00",
            "\U000e0101",
            "\u180b",
        ),
        *(
            "\U000e0041",
            "\U000e007f",
            "\U0001d173",
            "\U0001bca0",
            "\ufff0",
            "\ufff9",
            "\ufffe",
            "\U0010ffff",
            "\ufdd0",
        ),
        *("\x7f", "\x80", "\x9b", "\0"),
    ],
)
def test_d16_what_shows_nothing_is_not_visible(hidden: str) -> None:
    """White space, default-ignorables, noncharacters, controls, and the cell of Braille that looks like a space."""
    assert not is_visible(hidden)
    assert not is_visible(hidden * 3 + " " + hidden)


# -- Names --


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Anna Müller", "Anna Müller"),
        ('J. <3 & "K"', 'J. <3 & "K"'),
        ("<b>Anna</b><script>x</script>", "Anna"),
        ("<<b>script>Anna", "< script>Anna"),
        ("x<y", "x< y"),
        ("  Anna \u00a0\u3000\u2800", "Anna"),
        ("Anna  Maria", "Anna  Maria"),
        ("<i> </i>Anna <b>", "Anna"),
        ("Anna\nMaria\tM\u2028N\u2029O\x85P\r\nQ", "Anna Maria M N O P Q"),
        ("\r\n\tAnna\r\n", "Anna"),
        ("An\x00n\x7fa\x80\x9b", "Anna"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("A\u030a \u212b", "\u00c5 \u00c5"),
        ("u<b></b>\u0308", "\u00fc"),
        ("a <\u0338 b", "a \u226e b"),
        ("\u212a", "K"),
        ("<\u212abd>Anna", "Anna"),
    ],
)
def test_d16_names_are_markup_free_one_line_trimmed_and_nfc(name: str, expected: str) -> None:
    assert sanitize_name(name) == expected


@pytest.mark.parametrize(
    "character",
    [
        *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u115f\u1160\u3164\uffa0\u17b4\u180b\u180e\ufe00\ufe0f\U000e0100\U000e0061",
        *"\ufff9\ufffe\U0001ffff\ufdd0\ufff0\U0001d173\U0001bca0\x7f\x9b\0",
    ],
)
def test_d16_names_have_nothing_that_cannot_be_seen_and_it_cannot_hide_markup(character: str) -> None:
    """Or else one user passes for another."""
    assert sanitize_name(f"{character}Bobby") == "Bobby"
    assert sanitize_name(f"Bobby{character}") == "Bobby"
    assert sanitize_name(f"Bobby {character} Ray{character * 2}mond") == "Bobby  Raymond"
    assert sanitize_name(f"<{character}b>Anna</b{character}>") == "Anna"
    assert sanitize_name(character * 3) == ""
    if character not in "\0":
        assert sanitize_text(f"An{character}na") == f"An{character}na", "content keeps it"


@pytest.mark.parametrize(
    "emoji",
    [
        FAMILY,
        "\u2764\ufe0f",  # a red heart
        "\u2764\ufe0f\u200d\U0001f525",  # a heart on fire
        "\u263a\ufe0e",  # a smile as text
        "1\ufe0f\u20e3",  # a keycap
        "#\ufe0f\u20e3",
        "\U0001f3f3\ufe0f\u200d\U0001f308",  # the rainbow flag
        "\U0001f3f4\u200d\u2620\ufe0f",  # the pirate flag
        "\U0001f469\U0001f3fd\u200d\U0001f680",  # an astronaut of some skin tone
        "\U0001f9d1\U0001f3fb\u200d\U0001f91d\u200d\U0001f9d1\U0001f3ff",  # two people of two skin tones
        "\U0001f575\ufe0f\u200d\u2642\ufe0f",  # a detective
        "\U0001f1e9\U0001f1ea",  # a flag of two letters
    ],
)
def test_d16_emoji_sequences_in_names_stay_whole(emoji: str) -> None:
    assert sanitize_name(f"Ann {emoji}") == f"Ann {emoji}"
    assert sanitize_name(f"{emoji}{emoji} x") == f"{emoji}{emoji} x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"Ann {FAMILY}{ZWJ}", f"Ann {FAMILY}"),
        (f"{ZWJ}{FAMILY}", FAMILY),
        (f"\U0001f468{ZWJ}a b", "\U0001f468a b"),
        (f"\U0001f468{ZWJ}{ZWJ}\U0001f469 b", "\U0001f468\U0001f469 b"),
        ("\u2764\ufe0f\ufe0f b", "\u2764\ufe0f b"),
        (f"\u2764\ufe0f{ZWNJ}ab", "\u2764\ufe0fab"),
        ("1\ufe0f b", "1 b"),
        (f"Flag {SCOTLAND}", "Flag \U0001f3f4"),
        ("\u845b\U000e0100\u57ce", "\u845b\u57ce"),
    ],
)
def test_d16_joiners_selectors_and_tags_elsewhere_go(name: str, expected: str) -> None:
    assert sanitize_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian: I want
        "\u0995\u09cd\u200c\u09b7\u0995",  # Bengali letters that are not to be joined
        "Auf\u200clage",
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala: Sri, of which the joiner makes one letter of two
        "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",  # Hebrew with its points, in the order of NFC
    ],
)
def test_d16_what_writing_needs_stays_in_names(name: str) -> None:
    assert sanitize_name(name) == name


@pytest.mark.parametrize(
    "name", [f"a{ZWNJ}", f"{ZWNJ}a", f"a{ZWNJ} b", f"a{ZWNJ}1", f"a{ZWNJ}{ZWNJ}b", f"a{ZWJ}b"]
)
def test_d16_joiners_that_are_not_between_letters_go(name: str) -> None:
    assert sanitize_name(name) == re.sub(f"[{ZWNJ}{ZWJ}]", "", name)


def test_d16_a_name_is_normalised_whenever_its_normal_form_could_be_short_enough() -> None:
    # The densest there is: four code points that become one.
    longest = unicodedata.normalize("NFD", "\u1f82") * NAME_MAX
    assert len(longest) == 4 * NAME_MAX
    assert sanitize_name(longest) == "\u1f82" * NAME_MAX
    assert len(sanitize_name(longest + "a")) > NAME_MAX
    assert sanitize_name(f"<b title='{longest * 4}'>" + longest) == "\u1f82" * NAME_MAX
    # What sanitize_name takes for granted about Unicode, whichever version of it this Python has.
    decomposing = [c for c in map(chr, range(0x80, sys.maxunicode + 1)) if unicodedata.decomposition(c)]
    assert max(len(unicodedata.normalize("NFD", c)) for c in decomposing) == 4
    meaningful = re.compile("[A-Za-z<>/!?]")
    assert [c for c in decomposing if meaningful.match(unicodedata.normalize("NFC", c))] == ["\u212a"]


names = st.lists(
    st.sampled_from(
        [
            *"<<>/b =ax1Ku&\t\r\n\0\x85\u0338\u0308\u0327\u0344\u212a\u202e\u2067\u200f\u2000\u2800\u3164\u09cd\u0995\ufe0f\u20e3",
            *(
                "<b>",
                "</b>",
                "<!--",
                "-->",
                "<script>",
                "</script>",
                ZWNJ,
                ZWJ,
                FAMILY,
                SCOTLAND,
                "\u2764\ufe0f",
                "1\ufe0f\u20e3",
            ),
        ]
    )
    | st.characters(codec="utf-8"),
    max_size=16,
).map("".join)


@given(names)
@example("\u0344" * 4 * NAME_MAX)
@example(" " + "a\u0308" * 2 * NAME_MAX)
@example("<\u0338b>")
@example("<<\u0338\u212ab>")
@example(f"e{ZWNJ}<b></b>\u0301")
def test_d16_sanitising_a_name_twice_changes_nothing(name: str) -> None:
    once = sanitize_name(name)
    assert sanitize_name(once) == once
    assert once == once.strip()
    assert not once or is_visible(once[0])
    assert unicodedata.is_normalized("NFC", once)
    assert_no_markup(once)


@given(names)
def test_d16_of_what_can_be_ignored_names_have_only_joiners_and_selectors_with_something_on_their_left(
    name: str,
) -> None:
    """As another copy of the Unicode database has it."""
    once = sanitize_name(name)
    for found in regex.finditer(
        r"[\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\p{Cc}\p{Bidi_Control}]", once
    ):
        assert found[0] in "\u200c\u200d\ufe0e\ufe0f"
        before = once[found.start() - 1 : found.start()]
        if found[0] == ZWNJ:
            assert regex.match(r"[\p{L}\p{M}]", before)
            assert regex.match(r"[\p{L}\p{M}]", once[found.end() : found.end() + 1])
        else:
            assert regex.match(r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{M}\ufe0f\ufe0e0-9#*]", before)


# -- The tables --


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "property_"),
    [
        (DEFAULT_IGNORABLE, "Default_Ignorable_Code_Point"),
        (NONCHARACTERS, "Noncharacter_Code_Point"),
        (PICTOGRAPHIC, "Extended_Pictographic"),
    ],
)
def test_d16_the_tables_are_those_of_unicode(table: str, property_: str) -> None:
    """Of a copy of the database that somebody else keeps. The range of emoji that may come one day becomes smaller with each version."""
    ours, theirs = re.compile(f"[{table}]"), regex.compile(rf"\p{{{property_}}}")
    characters = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF)
    different = set(ours.findall(characters)) ^ set(theirs.findall(characters))
    assert [hex(ord(c)) for c in different if not regex.match(r"\p{Cn}", c)] == []


# -- Cost --


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        *(repeated(*flood) for flood in FLOODS[::3]),
        *(
            repeated("a", unit)
            for unit in (
                "\u0301\u0327",
                "\u0344",
                "\u202e<",
                "\n<b>",
                "\u212a",
                "  \u3000",
                FAMILY,
                "a\u200c",
            )
        ),
    ],
)
def test_d16_twice_the_name_takes_at_most_2_3_times_the_lines(make: Callable[[int], str]) -> None:
    short, long = (lines_run(sanitize_name, make(size)) for size in (8192, 16384))
    assert long <= 2.3 * short + 50
