"""core.wire.markup against D16: what is markup and goes, and what only looks so and stays.

HTML parsers that share no code with it have the last word on whether anything is left (``tests.core.html_parsers``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.wire.html_names import BOOLEAN_ATTRIBUTES, ELEMENTS, VOID
from core.wire.markup import TAG_MAX, space_out, without_markup
from core.wire.sanitize import sanitize_text
from tests.core.html_parsers import assert_no_markup
from tests.core.lines_run import lines_run
from tests.core.markup_floods import FLOODS, repeated
from tests.core.xss_vectors import VECTORS
from tests.examples import examples

#: Text in which a careless reader could see markup.
UNTOUCHED: Final = [
    "a < b && c",
    "I <3 you",
    "x > y",
    "&lt;b&gt;",
    "&amp; &nbsp; &#60;b&#62;",
    "5 < 6 > 4",
    "a<=b, c<-d, e<>f, <<<, >>>",
    "<é> is no tag: its name would have to begin with a to z",
    "<\n/b>",
    "--> ]]> /> '\"",
    "a < b>c, < script>alert(1)< /script>",
    "<",
    "",
    "  spaces, \t tabs and \n line feeds \n\n",
    "\u00a0\u2028\ufeff\ufffe\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u212a \u202eabc\u202c",
    "DEL \x7f and C1 \x80\x85\x9b are not C0",
]

#: Text that a parser would take for markup: it stays, and gets spaces.
SPACED: Final = [
    ("x<y", "x< y"),
    ("for(i=0;i<n;i++){}", "for(i=0;i< n;i++){}"),
    ("List<String> xs", "List< String> xs"),
    ("List<Object>", "List< Object>"),
    ("Map<String, List<Object>> m", "Map< String, List< Object>> m"),
    ("std::vector<int> v", "std::vector< int> v"),
    ("#include <stdio.h>", "#include < stdio.h>"),
    ("<img src=x onerror=alert(1)", "< img src=x onerror=alert(1)"),
    ("a<b>c", "a< b>c"),
    ("a<b/>c", "a< b/>c"),
    ("7<i>", "7< i>"),
    ("é<b>", "é< b>"),
    ("if (a <b && c> d)", "if (a < b && c> d)"),
    ("mail <ann@example.com>", "mail < ann@example.com>"),
    ("see <https://example.com/?q=1>", "see < https://example.com/?q=1>"),
    ("<your name here>", "< your name here>"),
    ("<custom-element>x</custom-element>", "< custom-element>x< /custom-element>"),
    ("<input nonsense>", "< input nonsense>"),
    ("<b and c>", "< b and c>"),
    ("<b x=>", "< b x=>"),
    ("<b =x>", "< b =x>"),
    ("<b x==y>", "< b x==y>"),
    ('<b ">', '< b ">'),
    ("<b x='y>", "< b x='y>"),
    ("a<b<c>d", "a< b< c>d"),
    ("<b x=1 <c", "< b x=1 < c"),
    ("</", "< /"),
    ("</ b>", "< / b>"),
    ("</3", "< /3"),
    ("</>", "< />"),
    ("<!", "< !"),
    ("<!x>", "< !x>"),
    ("<?", "< ?"),
    ("<?= $x ?>", "< ?= $x ?>"),
    ("<?xml version='1.0'>", "< ?xml version='1.0'>"),
    ("<!-- never closed", "< !-- never closed"),
    ("<!-- ->", "< !-- ->"),
    ("<!doctype html", "< !doctype html"),
    ("<!doctypes>", "< !doctypes>"),
    ("<![CDATA[x]]>", "< ![CDATA[x]]>"),
    ("<<<a", "<<< a"),
]

#: Markup, and what is left of it.
REMOVED: Final = [
    # Tags.
    ("<b>bold</b> and <i>not</i>", "bold and not"),
    ("a<b>c</b>d", "acd"),
    ("a<b>c</B >d", "acd"),
    ("a <b> c", "a  c"),
    ("(<b>c", "(c"),
    ("a_<b>c", "a_c"),
    ("a<br>b<BR />c<hr/>d", "abcd"),
    ("a</b>c", "ac"),
    ("<b\nclass\t=\tx >c", "c"),
    ("a<b x=y>c", "ac"),
    ("a<img>b", "ab"),
    ("<svg><foreignObject><font-face/></foreignObject></svg>", ""),
    ("<math><annotation-xml>x</annotation-xml></math>", "x"),
    ("<table>one<tr>two</table>three", "one< tr>twothree"),
    ("<plaintext>a<plaintext x=y>b", "ab"),
    # Attributes.
    ('a<b title="1>2">c', "ac"),
    ("a<b title='1>2' x = \"3<4\">c", "ac"),
    ("<b title='<i>'>c", "c"),
    ("<b/x='/>'/>c", "c"),
    ("<b x='y'z=1>c", "c"),
    ("<a href=https://example.com/?a=1&b='2'>c", "c"),
    ("<br x=/>c", "c"),
    ("<img src=x onerror=alert('x')>", ""),
    ("<input disabled CHECKED>", ""),
    ("<input disabled/required value=1>", ""),
    ("<video controls muted=muted>x", "x"),
    ("</b title='>'>c", "c"),
    # Comments, doctypes, instructions.
    ("a<!-- b > <i> c -->d", "ad"),
    ("a<!-->b<!--->c<!---->d", "abcd"),
    ("a<!-- <!-- b --> c -->d", "a c -->d"),
    ("<!DOCTYPE html>a<!doctype>b", "ab"),
    ("a<?xml version='1.0'?>b<?php if ($a < $b && $c > 0) x(); ?>c<?x?>d", "abcd"),
    # Script and style, with what they hold where they are closed.
    ("a<script>b<c>d</script>e", "ae"),
    ("a<script>b</script>c<script>d</script>e", "ace"),
    ("a <ScRiPt type='>'>b</sCrIpT >e", "a e"),
    ("<script/>b</script x='>'>c", "c"),
    ("<script>b</scripty></ script></script>c", "c"),
    ("<script>'<!--'</script>b", "b"),
    ("<style>b<c>d</style\n>e", "e"),
    ("a <script>b", "a b"),
    ("<script>b</script", "b< /script"),
    ("a<script>b", "a< script>b"),
    ("<style x=y>b</styled>", "b< /styled>"),
    ("<title>a</title><textarea>b</textarea><xmp>c</xmp>", "abc"),
    # What is left when markup is taken out is not looked at again.
    ("<scr<script>ipt>alert(1)</script>x", "< scrx"),
    ("<scr<b></b>ipt>alert(1)</script>x", "< script>alert(1)x"),
    ("<<i></i>b>c", "< b>c"),
    ("<<b>script>alert(1)<</b>/script>", "< script>alert(1)< /script>"),
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_d16_text_that_is_not_markup_is_untouched(text: str) -> None:
    assert sanitize_text(text) == text


@pytest.mark.parametrize(("text", "expected"), SPACED)
def test_d16_text_that_only_looks_like_markup_stays_and_gets_a_space(text: str, expected: str) -> None:
    assert without_markup(text) == text
    assert sanitize_text(text) == expected


@pytest.mark.parametrize(("text", "expected"), REMOVED)
def test_d16_markup_is_removed(text: str, expected: str) -> None:
    assert sanitize_text(text) == expected


@pytest.mark.parametrize(("text", "expected"), [*REMOVED, *SPACED, *((text, text) for text in UNTOUCHED)])
def test_d16_no_parser_finds_markup_in_the_examples_and_a_second_time_changes_nothing(
    text: str, expected: str
) -> None:
    assert_no_markup(expected)
    assert sanitize_text(expected) == expected


@pytest.mark.parametrize("vector", VECTORS)
def test_d16_no_parser_finds_markup_in_what_is_left_of_an_attack(vector: str) -> None:
    once = sanitize_text(vector)
    assert_no_markup(once)
    assert sanitize_text(once) == once


@pytest.mark.parametrize("length", [TAG_MAX - 1, TAG_MAX, TAG_MAX + 1])
@pytest.mark.parametrize(
    ("begin", "fill", "end"), [("<b x='", "y", "'>"), ("<b", " ", ">"), ("</b x=", "<", ">")]
)
def test_d16_a_tag_has_at_most_1024_code_points(length: int, begin: str, fill: str, end: str) -> None:
    quoted = fill if fill != "<" else "\U0001f468"
    tag = begin + quoted * (length - len(begin) - len(end)) + end
    assert without_markup(tag) == ("" if length <= 1024 else tag)


def test_d16_the_tables_have_the_elements_of_today_and_of_old() -> None:
    """In lower case, as they are looked up."""
    assert {
        "a",
        "dialog",
        "search",
        "marquee",
        "xmp",
        "lineargradient",
        "font-face",
        "mi",
        "annotation-xml",
    } <= ELEMENTS
    assert VOID <= ELEMENTS
    for name in (*ELEMENTS, *BOOLEAN_ATTRIBUTES):
        assert re.fullmatch("[a-z][a-z0-9-]*", name), name
    for name in sorted(ELEMENTS):
        assert without_markup(f"<{name}>") == "", name
        assert without_markup(f"a<{name.upper()}>") == ("a" if name in VOID else f"a<{name.upper()}>")
    for name in BOOLEAN_ATTRIBUTES:
        assert without_markup(f"<input {name}>") == "", name
        assert without_markup(f"<input {name}x>") != "", name


# -- Properties --

#: Pieces of which random input comes close to markup often enough.
PIECES: Final = [
    *"<<</!?>>='\"-&xb1é \n\u00a0",
    *(
        "</",
        "<!--",
        "--",
        "-->",
        "--!>",
        '="',
        "='",
        "<b>",
        "<b ",
        "</b>",
        "&lt;",
        "<![CDATA[",
        "]]>",
        "<?x ",
        "?>",
    ),
    *(
        "script",
        "style",
        "SCRIPT",
        "<script",
        "</script",
        "<script>",
        "</script>",
        "<style>",
        "</style>",
        "<!doctype ",
    ),
    *(
        "<br>",
        "<Object>",
        " checked",
        " x=y",
        " x='<b>'",
        "<p/>",
        "<svg ",
        "<math>",
        "<title>",
        "<textarea>",
        "\u212a",
        "\u017f",
    ),
]
almost_markup = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


@settings(max_examples=examples(600))
@given(almost_markup | st.text())
@example("<<i></i>b x='>'>")
@example("<b x='<!--'>-->")
def test_d16_no_parser_finds_markup_in_sanitised_content(text: str) -> None:
    once = sanitize_text(text)
    assert_no_markup(once)
    assert sanitize_text(once) == once


@given(almost_markup)
def test_d16_whatever_is_left_was_there_in_this_order(text: str) -> None:
    """Removing only leaves out, and spacing out only puts in spaces behind a `<`."""
    clean = without_markup(text)
    rest = iter(text)
    assert all(character in rest for character in clean)
    spaced = space_out(clean)
    assert re.sub("<[ ](?=[A-Za-z/!?])", "<", spaced) == re.sub("<[ ](?=[A-Za-z/!?])", "<", clean)
    assert not re.search("<[A-Za-z/!?]", spaced)


@given(st.text(st.characters(codec="utf-8", exclude_characters="<", exclude_categories=["Cc"])))
def test_d16_content_without_brackets_and_controls_is_untouched(text: str) -> None:
    assert sanitize_text(text) == text


@given(
    st.text(st.sampled_from("ab1 =;+-(){}[]&|.,:\"'>\n")),
    st.text(st.sampled_from("ab1 =;+-(){}[]&|.,:\"'\n")),
)
def test_d16_a_comparison_loses_nothing_but_may_gain_a_space(left: str, right: str) -> None:
    """No name of an element stands behind the `<`."""
    text = f"{left}<zz{right}"
    assert without_markup(text) == text


# -- Cost (see tests/core/wire/test_markup_cost.py for instructions) --


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [repeated(*flood) for flood in FLOODS], ids=[repr(flood) for flood in FLOODS]
)
def test_d16_twice_the_text_takes_at_most_2_3_times_the_lines(make: Callable[[int], str]) -> None:
    """Lines of Python run, which is the same in every run; what the expressions do within a line they don't show."""
    short, long = (lines_run(sanitize_text, make(size)) for size in (8192, 16384))
    assert long <= 2.3 * short + 50
