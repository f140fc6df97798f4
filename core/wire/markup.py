"""Tells markup from text: what of a text is tags, comments and the like, and goes; and what only looks so, and stays (D16).

`a < b`, `List<String>` and `for(i=0;i<n;i++)` are text, `<b>` and `<img src=x onerror=alert(1)>` are markup. Whether a `<` begins markup
is not decided as an HTML parser does it, for which everything behind `<s` is a tag, but by what people write: a tag has to be complete
and short, its name has to be an element's, and what is in it has to read as attributes. Every other `<` that a parser would take for
the beginning of a tag stays and gets a space behind it (`space_out`), and is text for a parser too.

So no parser finds an element in the result, however markup was taken apart or nested: once everything is removed, there is no `<` before
a letter, `/`, `!` or `?` that has not got its space. That also makes a second time change nothing, and one pass enough.

The work is linear. A tag is looked at for `TAG_MAX` characters at most; whether a comment or an instruction is ever closed is
looked up once; and the end tags of a text are gathered in one go. The quantifiers are possessive (`*+`): nothing is tried in two ways.

The rules are simplified in three points. None of them can leave a tag behind: an end tag counts wherever it stands, within a comment
too; a comment ends with `-->` only; and a script ends with the first end tag behind it, as for a parser that knows no comments in scripts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from core.wire.html_names import BOOLEAN_ATTRIBUTES, ELEMENTS, RAW, VOID

#: Code points of the longest tag. Long enough for a link, and short enough that a `<` costs nobody much.
TAG_MAX: Final = 1024

#: A `<` that an HTML parser takes for the beginning of markup.
_BEGINS: Final = re.compile(r"<(?=[A-Za-z/!?])")

_NAME: Final = r"""[^\t\n "'<>/=]++ [\t\n ]*+ = [\t\n ]*+"""
_BOOLEAN: Final = rf"(?=[A-Za-z]) (?i:{'|'.join(BOOLEAN_ATTRIBUTES)}) (?=[\t\n />])"

#: A tag behind its `<`. Group 1: the name, with the `/` of an end tag. Group 2: the rest of one without attributes. Group 3: the end of one
#: with attributes. Without 2 and 3 there is more to come: a value without quotes that has one further on, as in `alert('x')`.
_TAG: Final = rf"""
    (/?+[A-Za-z][A-Za-z0-9-]*+) (?=[\t\n />])
    (?: ([\t\n /]*+>)
      | (?: [\t\n /]++
          | {_NAME} (?: "[^"]*+" | '[^']*+' | [^\t\n "'<>=][^\t\n "'<>]*+(?=[\t\n >]) )
          | {_BOOLEAN}
        )*+
        (?: (>) | (?= {_NAME} [^\t\n "'<>=] ) )
    )
"""

#: Where something may be to remove: a tag, as far as above; a comment; a doctype, as a whole; an instruction, with its name (group 4).
_CANDIDATE: Final = re.compile(
    rf"""
    < (?: {_TAG}
      | !--
      | !(?i:doctype) (?=[\t\n >]) [^<>]*+ >
      | \?([A-Za-z_:][A-Za-z0-9_:.-]*+) (?=[\t\n ?])
    )
    """,
    re.VERBOSE | re.ASCII,
)

_END_TAG: Final = re.compile(rf"< (?=/) {_TAG}", re.VERBOSE | re.ASCII)

#: An attribute with any value, or (group 1) the end of the tag.
_ATTRIBUTE: Final = re.compile(
    rf"""
    [\t\n /]*+
    (?: (>) | {_NAME} (?: "[^"]*+" | '[^']*+' | [^\t\n "'<>=][^\t\n <>]*+ ) | {_BOOLEAN} )
    """,
    re.VERBOSE | re.ASCII,
)


def _any_of(names: Iterable[str]) -> str:
    """Make a pattern of all these names, by their first letters: one long alternation would be tried name by name."""
    groups = groupby(sorted(names), key=lambda name: name[0])
    return "|".join(f"{first}(?:{'|'.join(name[1:] for name in group)})" for first, group in groups)


#: Tags without attributes, one behind the other. Behind something that was removed all of them go: none is a `List<Object>`.
_MORE_TAGS: Final = re.compile(
    rf"(?: < /?+ (?:{_any_of(ELEMENTS - RAW)}) [\t\n /]{{0,8}}+ > )++",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)


class _Terminator:
    """Where in a text a token stands next. Asked for growing positions it reads the text once."""

    __slots__ = ("_at", "_text", "_token")

    def __init__(self, text: str, token: str) -> None:
        self._text = text
        self._token = token
        self._at = 0

    def end_behind(self, position: int) -> int:
        """Return the end of the next one that begins at `position` or later; -1 when there is none."""
        if 0 <= self._at < position or not self._at:
            self._at = self._text.find(self._token, position)
        return self._at + len(self._token) if self._at >= 0 else -1


class _Tags:
    """The tags of a text. What was found out about an attribute holds for every tag that it may be part of."""

    __slots__ = ("_ends", "_ends_of", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        #: Before an attribute -> the end of the tag; -1 when what follows does not read as attributes.
        self._ends: dict[int, int] = {}
        #: Name of an element -> (beginning, end) of its end tags; None until somebody asks.
        self._ends_of: dict[str, list[tuple[int, int]]] | None = None

    def end(self, position: int) -> int:
        """Return the end of the tag that goes on at `position` with an attribute; -1 when it is none."""
        text, ends = self._text, self._ends
        passed: list[int] = []
        while (end := ends.get(position)) is None:
            passed.append(position)
            attribute = _ATTRIBUTE.match(text, position)
            if attribute is None:
                end = -1
                break
            position = attribute.end()
            if attribute[1] is not None:
                end = position
                break
        for position in passed:
            ends[position] = end
        return end

    def end_tag(self, name: str, position: int) -> int:
        """Return the end of the first end tag of an element that begins at `position` or later; -1 when there is none."""
        if self._ends_of is None:
            self._ends_of = {}
            for match in _END_TAG.finditer(self._text):
                start, end = match.span()
                if match[2] is None and match[3] is None:
                    end = self.end(end)
                if 0 <= end <= start + TAG_MAX:
                    self._ends_of.setdefault(match[1][1:].lower(), []).append((start, end))
        following = self._ends_of.get(name)
        if following is None or following[-1][0] < position:
            return -1
        return following[bisect_left(following, (position, 0))][1]

    def end_of(self, start: int, end: int, name: str, is_bare: bool, is_ended: bool) -> int:
        """Return the end of what goes with a tag from `start` to `end`; -1 when it is text. `name` is as in `_TAG`, in lower case."""
        element = name[1:] if name[0] == "/" else name
        if element not in ELEMENTS:
            return -1
        if not is_bare and not is_ended:
            end = self.end(end)
        if not 0 <= end <= start + TAG_MAX:
            return -1
        if element is not name or name in VOID:
            return end
        if name in RAW:
            closed = self.end_tag(name, end)
            if closed >= 0:
                return closed
        if is_bare and self._text[start - 1 : start].isalnum() and self.end_tag(name, end) < 0:
            return -1  # `List<Object>`
        return end


def without_markup(text: str) -> str:
    """Return `text` without its markup. C0 controls must be gone before; what is left may still need `space_out`."""
    tags, comments, instructions = _Tags(text), _Terminator(text, "-->"), _Terminator(text, "?>")
    kept: list[str] = []
    through = position = 0
    while (match := _CANDIDATE.search(text, position)) is not None:
        start, end = match.span()
        name, bare, ended, instruction = match.groups()
        if name is not None:
            end = tags.end_of(start, end, name.lower(), bare is not None, ended is not None)
        elif instruction is not None:
            end = instructions.end_behind(end)
        elif text[end - 1] == "-":
            end = comments.end_behind(start + 2)  # `<!-->` is a whole comment, and so is `<!--->`
        if end < 0:
            position = start + 1
            continue
        if start > through:
            kept.append(text[through:start])
        more = _MORE_TAGS.match(text, end)
        through = position = end if more is None else more.end()
    if not through:
        return text
    kept.append(text[through:])
    return "".join(kept)


def space_out(text: str) -> str:
    """Return `text` with a space behind each `<` that would begin markup, for a parser that reads it."""
    return _BEGINS.sub("< ", text)
