"""Texts that are made to take a sanitiser's time: each looks, at every position, as if its end might follow at last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: What a text begins with, and what then comes again and again until it is as long as it may be.
FLOODS: Final = [
    *(
        ("", unit)
        for unit in (
            "<",
            "</",
            "<b",
            "<b>",
            "<<b>",
            "a<b>",
            "x<",
            "</>",
            "<!>",
            "<?",
            "<b/",
            "<3",
            "</b>",
            "a<b></b>",
        )
    ),
    *(("", unit) for unit in ("\x01<b>", "\r\n", "\r<b>")),
    *(
        ("", unit)
        for unit in (
            "<b ",
            '<b "',
            "<b '",
            '<b x="',
            "<b x='",
            "<b x=\"'",
            "<b x=y ",
            "<b = ",
            "<b x",
            "<b\n",
            "<b loop ",
        )
    ),
    *(
        ("", unit)
        for unit in (
            "<b x=y>",
            "<b x='>'>",
            "</b x='",
            "<b a=b c=d e=f g='",
            "<b x=y<b ",
            "<b loop<b ",
            "<a b ",
        )
    ),
    # Every tag that is begun here goes on to the very end, one within the other.
    *(
        ("", unit)
        for unit in (
            "<b x='\" y=z' w=\"",
            "<b x=\"' y=z\" w='",
            "</b x='\" y=z' w=\"",
            "<script x='\" y=z' w=\"",
        )
    ),
    *(
        ("", unit)
        for unit in (
            "<!--",
            "<!-- -",
            "<!-->",
            "<!--<?x ",
            "--",
            "<!doctype ",
            "<!doctype x",
            "<?x ",
            "<?x ?",
            "<?x?>",
        )
    ),
    *(
        ("", unit)
        for unit in (
            "<script>",
            "a<script>",
            "<script></script>",
            "</script ",
            "<script x='>'>",
            "<style></styl",
        )
    ),
    ("<!--", "-"),
    ("<!--", "<b>"),
    ("<script>", "</script"),
    ("<script>", "<script x=y>"),
    ("<style>", "<b x=y>"),
    ("<b ", "="),
    ("<b ", "x="),
    ("<b ", "/"),
    ("<b", " "),
    ("<b x", " "),
    ("<b x='", '<b y="'),
    ("a", "<b>a</i>"),
]


def repeated(opening: str, unit: str) -> Callable[[int], str]:
    """Makes `opening` and then `unit` again and again, as long as asked."""
    return lambda length: (opening + unit * (length // len(unit) + 1))[:length]
