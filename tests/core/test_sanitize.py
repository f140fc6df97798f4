"""core.sanitize against D16: what goes, what stays byte for byte, and what it costs.

Two HTML parsers that share no code with it have the last word: html5ever (through nh3) says what the text of
random input is, and Python's html.parser must find nothing but text in what comes out.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from time import thread_time
from typing import Final

import nh3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.protocol import MESSAGE_MAX_BYTES, NAME_MAX
from core.sanitize import sanitize_name, sanitize_text

#: Text in which a careless reader could see markup; an HTML5 parser sees none.
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
    "an unfinished </",
    "<",
    "",
    "  spaces, \t tabs and \n line feeds \n\n",
    "\u00a0\u2028\ufeff\ufffe\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u212a \u202eabc\u202c",
    "DEL \x7f and C1 \x80\x85\x9b are not C0",
]

#: Input, and what is left of it after one pass.
MARKUP: Final = [
    # Tags.
    ("a<b>c</b>d", "acd"),
    ("a<br/>b<BR />c", "abc"),
    ("a<b\nclass\t=\tx >c", "ac"),
    ("a</b foo='>'>c", "ac"),
    ("a<custom-element:x>c", "ac"),
    ("a<b<c>d", "ad"),
    ("x<y, and y>z", "xz"),
    # A `>` in a quoted value does not end the tag; quotes count behind `=` only.
    ('a<b title="1>2">c', "ac"),
    ("a<b title='1>2' x = \"3>4\">c", "ac"),
    ("a<b title=1'>c'>d", "ac'>d"),
    ('a<b ">c">d', 'ac">d'),
    ('a<b =">c', "ac"),
    ("a<b x=>c", "ac"),
    ('a<b x==">c">d', 'ac">d'),
    ("a<b x='y'z>c", "ac"),
    ('a<b/x="/>"/>c', "ac"),
    # Never closed: it reaches to the end of the text.
    ("hello <script", "hello "),
    ("hello <b", "hello "),
    ("hello </b", "hello "),
    ("hello <img src=x onerror=alert(1)//", "hello "),
    ("hello <img src=x onerror=", "hello "),
    ("hello <b title='>\"", "hello "),
    ("hello <b title=\">'", "hello "),
    # Comments.
    ("a<!-- b > c -->d", "ad"),
    ("a<!-->b-->c", "ab-->c"),
    ("a<!--->b-->c", "ab-->c"),
    ("a<!---->b", "ab"),
    ("a<!-- b > c --!>d", "ad"),
    ("a<!-- b --!--->c", "ac"),
    ("a<!-- b ---->c", "ac"),
    ("a<!-- b -- > ->c-->d", "ad"),
    ("a<!-- <!-- b --> c", "a c"),
    ("a<!-- b --", "a"),
    ("a<!--", "a"),
    # Doctypes and what HTML calls bogus comments.
    ("<!DOCTYPE html>a", "a"),
    ("<!doctype x '>' y>a", "' y>a"),
    ("a<!x>b<!>c<!", "abc"),
    ("a<?xml version='1.0'?>b<?>c<?", "abc"),
    ("a</ >b</>c</3>d</\n", "abcd"),
    ("a<![CDATA[b<c]]>d", "ad"),
    # Script and style go with what they hold.
    ("a<script>b<c>d</script>e", "ae"),
    ("a<ScRiPt type='>'>b</sCrIpT >e", "ae"),
    ("a<script/>b</script/x='>'>c", "ac"),
    ("a<script>b</scripty></ script></script>c", "ac"),
    ("a<script>b", "a"),
    ("a<script>b</script", "a"),
    ("a<script>'<!--'</script>b", "ab"),
    ("a<script><!-- <script>b</script> c</script>d", "ad"),
    ("a<script><!-- <script>b</script> c--></script>d", "ad"),
    ("a<script><!-- <script>b --></script>c", "ac"),
    ("a<script><!--><script></script>b", "ab"),
    ("a<script><!-- <script>b</script>", "a"),
    ("a<style>b<c>d</style\n>e", "ae"),
    ("a<style><!-- </style>b", "ab"),
    ("a<style>b</styled>", "a"),
    ("a<scripty>b</scripty>", "ab"),
    ("a<\u017fcript>b", "a<\u017fcript>b"),
    ("a<\u017ftyle>b", "a<\u017ftyle>b"),
    ("<style></\u017ftyle>a</style>b", "b"),
    ("a<\u212abd>b", "a<\u212abd>b"),
    # The tags of the other raw text elements go, what they hold stays.
    ("<title>a</title><textarea>b</textarea><xmp>c</xmp>", "abc"),
    ("<iframe>a</iframe><noscript>b</noscript><plaintext>c", "abc"),
    # No tree is built, so nothing moves or gets lost.
    ("<table>one<tr>two</table>three", "onetwothree"),
    ("<template>a</template><select>b<option>c</select>", "abc"),
    ("<pre>\na</pre>", "\na"),
    ("<math><mi>a<script>b</script>c", "ac"),
    ("&lt;<b>&amp;</b>&gt;", "&lt;&amp;&gt;"),
]

#: Input whose remains make up new markup.
NESTED: Final = [
    ("<<b>script>alert(1)</script>", ""),
    ("<<b>script>alert(1)<</b>/script>x", "x"),
    ("<scr<script>ipt>alert(1)</script>x", "ipt>alert(1)x"),
    ("a<<!-- -->b>c", "ac"),
    ("<<i>!-- a --<i>>b", "b"),
    # Three passes are enough for three levels; of what is deeper, the `<` goes and the rest stays.
    ("<<<i>i>i>x", "x"),
    ("<<<<i>i>i>i>x", "i>x"),
    ("<<<<<i>i>i>i>i>x", "i>i>x"),
    ("<<<<<i>i>i>a < b", "a < b"),
    ("<<<<<i>i>i>/a <<", "/a <<"),
    ("<<<<<i>i>i>!a", "!a"),
    ("<<<<<i>i>i>?a", "?a"),
    ("<<<<<i>i>i>1a", "<<1a"),
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_d16_text_that_is_not_markup_is_untouched(text: str) -> None:
    assert sanitize_text(text) == text


@pytest.mark.parametrize(("text", "expected"), MARKUP)
def test_d16_markup_is_removed(text: str, expected: str) -> None:
    assert sanitize_text(text) == expected


@pytest.mark.parametrize(("text", "expected"), NESTED)
def test_d16_markup_made_by_removing_markup_is_removed(text: str, expected: str) -> None:
    assert sanitize_text(text) == expected


def test_d16_c0_controls_are_removed_from_content_but_tab_and_line_feed() -> None:
    assert sanitize_text("".join(map(chr, range(0x21)))) == "\t\n "
    assert sanitize_text("a\r\nb") == "a\nb"


@pytest.mark.parametrize(
    "text", ["<\x00script>x</script>", "<scr\x1fipt>x</script>", "<!\x07--x-->", "<\rb x='>'>"]
)
def test_d16_controls_go_before_markup_so_that_they_cannot_hide_it(text: str) -> None:
    assert sanitize_text(text) == ""
    assert sanitize_name(text) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Anna Müller", "Anna Müller"),
        ('J. <3 & "K"', 'J. <3 & "K"'),
        ("<b>Anna</b><script>x</script>", "Anna"),
        ("<<b>script>Anna", ""),
        ("<<<<i>i>i>i>Anna", "i>Anna"),
        ("  Anna \u00a0\u3000", "Anna"),
        ("<i> </i>Anna <b>", "Anna"),
        ("Anna\nMaria\tM\u2028N\u2029O\x85P", "Anna Maria M N O P"),
        ("\r\n\tAnna\r\n", "Anna"),
        ("An\x00n\x7fa\x80\x9b", "Anna"),
        ("A\u200dn\u200cn\ufe0fa", "A\u200dn\u200cn\ufe0fa"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("A\u030a \u212b", "\u00c5 \u00c5"),
        ("u<b>\u0308", "\u00fc"),
        ("a <\u0338 b", "a \u226e b"),
        ("\u212a", "K"),
        ("<\u212abd>Anna", "Anna"),
    ],
)
def test_d16_names_are_markup_free_one_line_trimmed_and_nfc(name: str, expected: str) -> None:
    assert sanitize_name(name) == expected


@pytest.mark.parametrize(
    "character", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
def test_d16_names_have_no_bidirectional_formatting_and_it_cannot_hide_markup(character: str) -> None:
    assert sanitize_name(f"{character}An{character}{character}na {character}") == "Anna"
    assert sanitize_name(f"<{character}b>Anna") == "Anna"
    assert sanitize_text(f"An{character}na") == f"An{character}na"


def test_d16_a_name_is_normalised_whenever_its_normal_form_could_be_short_enough() -> None:
    # The densest there is: four code points that become one.
    longest = unicodedata.normalize("NFD", "\u1f82") * NAME_MAX
    assert len(longest) == 4 * NAME_MAX
    assert sanitize_name(longest) == "\u1f82" * NAME_MAX
    assert sanitize_name(longest + "a") == longest + "a"
    # What sanitize_name takes for granted about Unicode, whichever version of it this Python has.
    decomposing = [c for c in map(chr, range(0x80, sys.maxunicode + 1)) if unicodedata.decomposition(c)]
    assert max(len(unicodedata.normalize("NFD", c)) for c in decomposing) == 4
    meaningful = re.compile("[A-Za-z<>/!?]")
    assert [c for c in decomposing if meaningful.match(unicodedata.normalize("NFC", c))] == ["\u212a"]


# -- Properties --

#: Pieces of which random input comes close to markup often enough.
PIECES: Final = [
    *"<<</!?>>='\"-&xb1é \n\u00a0",
    *("</", "<!--", "--", "-->", "--!>", '="', "='", "<b>", "<b ", "&lt;", "<![CDATA[", "]]>"),
    *("script", "style", "SCRIPT", "<script", "</script", "<script>", "</script>", "<style>", "</style"),
]
#: Opened beforehand, since random input rarely stays inside of one of these.
OPENINGS: Final = ["", "<script>", "<script><!--", "<script><!--<script>", "<style>", "<!--", '<b x="']
almost_markup = st.builds(
    lambda opening, pieces: opening + "".join(pieces),
    st.sampled_from(OPENINGS),
    st.lists(st.sampled_from(PIECES), max_size=16),
)
almost_names = st.lists(
    st.one_of(
        st.sampled_from([*PIECES, *"\t\r\x00\x85\u0338\u0308\u0327\u0344\u212a\u202e\u2067\u200f\u2000u"]),
        st.characters(codec="utf-8"),
    ),
    max_size=16,
).map("".join)


def parsed(text: str) -> str:
    """What html5ever takes for text in `text`.

    nh3 writes it as HTML, so its escapes have to be undone; escaping each `&` first saves those of the input.
    The dot is there since a U+FEFF at the very beginning would be taken for a byte order mark.
    """
    html = nh3.clean("." + text.replace("&", "&amp;"), tags=set(), clean_content_tags={"script", "style"})
    html = html.replace("&nbsp;", "\u00a0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return html.removeprefix(".")


class NothingButText(HTMLParser):
    """Fails for anything but text."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"a tag was left: {tag}")

    def handle_endtag(self, tag: str) -> None:
        raise AssertionError(f"an end tag was left: {tag}")

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment was left: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration was left: {decl}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction was left: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a section was left: {data}")


def assert_no_markup(text: str) -> None:
    """Neither parser finds any in it."""
    assert parsed(text) == text
    parser = NothingButText()
    parser.feed(text)
    parser.close()


@settings(max_examples=400)
@given(almost_markup)
@example("<script><!--<script></script>-</script>x")
@example("<<<<<b>b>b>b")
def test_d16_what_is_left_is_what_html5ever_takes_for_text(text: str) -> None:
    expected = text
    for _ in range(3):
        expected = parsed(expected)
    if parsed(expected) != expected:
        while match := re.search("<[A-Za-z/!?]", expected):
            expected = expected[: match.start()] + expected[match.start() + 1 :]
    assert sanitize_text(text) == expected


@given(almost_markup | st.text())
def test_d16_no_parser_finds_markup_in_sanitised_content(text: str) -> None:
    assert_no_markup(sanitize_text(text))


@given(almost_names)
def test_d16_no_parser_finds_markup_in_a_sanitised_name(name: str) -> None:
    assert_no_markup(sanitize_name(name))


@given(almost_markup | st.text())
def test_d16_sanitising_content_twice_changes_nothing(text: str) -> None:
    once = sanitize_text(text)
    assert sanitize_text(once) == once


@given(almost_names)
@example("\u0344" * 4 * NAME_MAX)
@example(" " + "a\u0308" * 2 * NAME_MAX)
@example("<\u0338b>")
@example("<<\u0338\u212ab>")
def test_d16_sanitising_a_name_twice_changes_nothing(name: str) -> None:
    once = sanitize_name(name)
    assert sanitize_name(once) == once
    assert once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


@given(almost_markup | st.text())
def test_d16_sanitising_content_only_leaves_out(text: str) -> None:
    characters = iter(text)
    assert all(character in characters for character in sanitize_text(text))


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="<", exclude_categories=["Cc"])
        | st.sampled_from("\t\n\x7f\x85\x9b")
    )
)
def test_d16_content_without_brackets_and_controls_is_untouched(text: str) -> None:
    assert sanitize_text(text) == text


# -- Cost --

#: Repeated up to the length of a message. Each looks, at every position, as if its end might follow at last.
FLOODS: Final = [
    *("<", "</", "<b", "<b>", "<<b>", "<i>x", "x<", "</>", "<!>", "<?", "<b/", "<3", "< ", "</ "),
    *("\x01<b>", "\x01<"),
    *("<b ", '<b "', "<b '", '<b x="', "<b x='", "<b x=\"'", "<b x=y ", "<b = ", "<b x", "<b\n"),
    *("<!--", "<!---", "<!-- -", "<!-- --!", "<!--<!-->", "<!-->", "--"),
    *("<script>", "<script", "<script ", "</script", "</script ", "<script></script>", "<script x='>'"),
    *("<script><!--", "<script><!--<script>", "<script><!-- --><script ", "<!--<script </script -"),
    *("<style>", "<style", "</style ", "<style></style>", "<style></styl"),
]
#: Begun with the first part; then the second until the message is full.
OPENED_FLOODS: Final = [
    ("<!--", "-"),
    ("<!--", "- "),
    ("<!--", "--x"),
    ("<script>", "<"),
    ("<script>", "</script"),
    ("<script><!--", "<"),
    ("<script><!--", "-<"),
    ("<script><!--<script ", "-<"),
    ("<script><!--", "<script </script "),
    ("<style>", "</style"),
    ("<b ", "="),
    ("<b ", "x="),
]


def nested(length: int) -> str:
    """`<<<...i>i>i>...`: each pass uncovers one tag."""
    return "<" * (length // 3) + "i>" * (length // 3)


def nested_behind_a_flood(length: int) -> str:
    """Only just deep enough to need every pass, each over as many `<` as there is room for."""
    return "<" * (length - 13) + " <<<<i>i>i>i>"


def repeated(opening: str, unit: str) -> Callable[[int], str]:
    """Makes `opening` and then `unit` again and again, as long as asked."""
    return lambda length: (opening + unit * (length // len(unit) + 1))[:length]


def assert_linear(sanitize: Callable[[str], str], make: Callable[[int], str]) -> None:
    """Four times the input takes at most 8 times the CPU time (linear: 4, quadratic: 16); best of several runs."""

    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(15):
            start = thread_time()
            sanitize(text)
            best = min(best, thread_time() - start)
        return best

    short, long = make(MESSAGE_MAX_BYTES // 4), make(MESSAGE_MAX_BYTES)
    # 50 us on top, so that the clock does not decide where there is next to nothing to do.
    assert seconds(long) <= 8 * seconds(short) + 50e-6


@pytest.mark.parametrize(("opening", "unit"), [*(("", unit) for unit in FLOODS), *OPENED_FLOODS])
def test_d16_cost_is_linear_for_floods(opening: str, unit: str) -> None:
    assert_linear(sanitize_text, repeated(opening, unit))


@pytest.mark.parametrize("make", [nested, nested_behind_a_flood])
def test_d16_cost_is_linear_for_nested_markup(make: Callable[[int], str]) -> None:
    assert_linear(sanitize_text, make)


@pytest.mark.parametrize("unit", ["\u0301\u0327", "\u0344", "\u202e<", "\n<b>", "\u212a", "  \u3000"])
def test_d16_cost_is_linear_for_floods_in_names(unit: str) -> None:
    assert_linear(sanitize_name, repeated("a", unit))
