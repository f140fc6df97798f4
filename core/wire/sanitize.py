"""What becomes of the texts that users write: markup and control characters go, everything else stays as it was (D16).

The result is text, and a page has to escape it like any text; what is promised is that a page which forgets to gets no element out of
it. What markup is, ``core.wire.markup`` says. Sanitising a result again changes nothing.

Names are for telling people apart, so what can't be seen goes from them as well, and what can be written in two ways is written in one.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from core.wire.markup import space_out, without_markup
from core.wire.protocol import NAME_MAX
from core.wire.unicode_tables import DEFAULT_IGNORABLE, NONCHARACTERS, PICTOGRAPHIC

#: The C0 controls but tab, line feed and carriage return. DEL and the C1 controls stay in a text: to HTML they are text.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]++")
_CARRIAGE_RETURN: Final = re.compile(r"\r\n?+")

#: What shows nothing, and is no white space: see `DEFAULT_IGNORABLE`, controls, and the marks of interlinear annotation.
_UNSEEN: Final = rf"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufff9-\ufffb{DEFAULT_IGNORABLE}{NONCHARACTERS}"
#: The cell of Braille without a dot. It is no white space by its properties, and looks like it.
_BLANK: Final = "\u2800"
_VISIBLE: Final = re.compile(rf"[^\s{_BLANK}{_UNSEEN}]")

# -- Names --

#: What breaks a line. A name is one line, and a space keeps its words apart.
_NAME_BREAKS: Final = re.compile(r"[\t\n\x85\u2028\u2029]")
#: What names are trimmed of.
_NAME_EDGES: Final = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + _BLANK
#: Zero-width non-joiner and joiner, and the selectors of how an emoji is shown: the ones that have a place in names.
_JOINERS: Final = "\u200c\u200d\ufe0e\ufe0f"
_JOINER: Final = re.compile(f"[{_JOINERS}]")
_NAME_INVISIBLE: Final = re.compile(rf"(?![{_JOINERS}])[{_UNSEEN}]")
#: Group 1: an emoji sequence (UTS #51), which keeps what joins and selects in it. Group 2: joiners anywhere else.
_NAME_JOINED: Final = re.compile(
    rf"""
    ( [0-9\#*] \ufe0f \u20e3
    | [{PICTOGRAPHIC}] [\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]?+ (?: \u200d [{PICTOGRAPHIC}] [\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]?+ )*+
    )
    | ([{_JOINERS}]++)
    """,
    re.VERBOSE,
)
_ZWNJ: Final = "\u200c"
_ZWJ: Final = "\u200d"
#: Canonical_Combining_Class of a virama: with a joiner behind it two letters are written as one, as in the Sinhala for Sri.
_VIRAMA: Final = 9

#: Normalising is quadratic in the length of a run of combining marks, 30 ms for 16 KiB. It makes one code
#: point of at most four (no canonical decomposition is longer), so what is longer than this is too long for a
#: name in any form, and can do without.
_NORMALISED_MAX: Final = 4 * NAME_MAX
#: What is normalised in one piece: nothing composes with an ASCII character before it.
_NORMALISED_PIECE: Final = re.compile(r"[\x00-\x7f]?+[^\x00-\x7f]++")


def sanitize_text(text: str) -> str:
    """Return the content of a message as it is stored; it may be empty, and longer than what was sent (D16)."""
    return space_out(clean_text(text))


def clean_text(text: str) -> str:
    """Return the content of a message without markup and C0 controls, and not yet spaced out: its length counts (D16)."""
    # What is printable has no controls; to ask that takes a third of the time of a search for them.
    if not text.isprintable():
        text = _without_controls(text)
    return without_markup(text) if "<" in text else text


def is_visible(text: str) -> bool:
    """Return whether anything of `text` can be seen: neither white space, nor default-ignorable, nor a control character (D16)."""
    return _VISIBLE.search(text) is not None


def sanitize_name(text: str) -> str:
    """Return a display name on one line: no markup, no invisible characters, trimmed, in NFC (D16).

    It may be empty, or too long; else it begins with something visible. Line breaks and tabs become spaces. What is too
    long for a name in any form is not normalised. Sanitising the result again changes nothing.
    """
    if not text.isprintable():
        text = _NAME_BREAKS.sub(" ", _without_controls(text))
    # Before the markup, since "<", an invisible character and "b>" make a tag once that character is gone.
    seen = _seen(text)
    text = without_markup(seen)
    if text is not seen:
        text = _seen(text)  # what stood around the markup may make one character
    return space_out(text).strip(_NAME_EDGES)


def _without_controls(text: str) -> str:
    return _CARRIAGE_RETURN.sub("\n", _CONTROLS.sub("", text))


def _seen(name: str) -> str:
    """Return what can be seen of a name, each character written in one way."""
    if name.isascii() and name.isprintable():
        return name
    return _NORMALISED_PIECE.sub(_normalised, _without_invisible(name))


def _without_invisible(name: str) -> str:
    name = _NAME_INVISIBLE.sub("", name)
    return _NAME_JOINED.sub(_kept, name) if _JOINER.search(name) is not None else name


def _normalised(piece: re.Match[str]) -> str:
    return unicodedata.normalize("NFC", piece[0]) if len(piece[0]) <= _NORMALISED_MAX else piece[0]


def _kept(match: re.Match[str]) -> str:
    """Return what stays of an emoji sequence, or of joiners elsewhere: one between two letters that it keeps apart, or makes one of."""
    emoji, joiners = match.groups()
    if emoji is not None:
        return match[0]
    text, start, end = match.string, match.start(), match.end()
    if not (
        start > 0 and end < len(text) and _is_of_a_letter(text[start - 1]) and _is_of_a_letter(text[end])
    ):
        return ""
    if joiners == _ZWJ:
        return _ZWJ if unicodedata.combining(text[start - 1]) == _VIRAMA else ""
    return _ZWNJ if joiners == _ZWNJ else ""


def _is_of_a_letter(character: str) -> bool:
    """Return whether it is a letter, or a mark that belongs to one."""
    return character.isalpha() or (
        unicodedata.category(character) in ("Mn", "Mc") and character not in _JOINERS
    )
