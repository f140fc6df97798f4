"""What HTML parsers that share no code with ours find in a text: html5ever (through nh3), Lexbor (through selectolax), and Python's own."""

from __future__ import annotations

from html.parser import HTMLParser

import nh3
from selectolax.lexbor import LexborHTMLParser


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


def text_by_html5ever(text: str) -> str:
    """What html5ever takes for text in `text`.

    nh3 writes it as HTML, so its escapes have to be undone; escaping each `&` first saves those of the input.
    The dot is there since a U+FEFF at the very beginning would be taken for a byte order mark.
    """
    html = nh3.clean("." + text.replace("&", "&amp;"), tags=set(), clean_content_tags={"script", "style"})
    html = html.replace("&nbsp;", "\u00a0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return html.removeprefix(".")


def nodes_by_lexbor(text: str) -> list[str]:
    """The kinds of nodes that Lexbor finds where a page has `text` between two tags."""
    page = LexborHTMLParser(f"<!doctype html><body><div>.{text}</div><hr></body>")
    assert page.body is not None
    around = list(page.body.iter(include_text=True))
    assert [node.tag for node in around] == ["div", "hr"], "what stands behind the text is no longer there"
    return [str(node.tag) for node in around[0].iter(include_text=True)]


def assert_no_markup(text: str) -> None:
    """No parser finds any in it."""
    assert text_by_html5ever(text) == text
    assert nodes_by_lexbor(text) == ["-text"]
    parser = NothingButText()
    parser.feed(text)
    parser.close()
