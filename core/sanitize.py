"""Takes markup and control characters out of what users write; the rest stays as it was, byte for byte (D16).

Markup is what an HTML5 parser takes for something else than text: tags, comments, doctypes, and what script
and style hold. So `<3`, `a < b` and `&lt;b&gt;` stay. The result is text, and a page has to escape it like
any text; what is promised is that a page which forgets to gets no tag out of it.

Source: WHATWG HTML, section 13.2.5 (tokenization); the comments at the expressions below name its states. It
is simplified in three points, none of which can leave a tag behind:

* Only script and style have a content of their own. What textarea, title, xmp, iframe, noembed, noframes,
  noscript and plaintext hold is read like any text: taken literally it would uncover tags, and the next pass
  would remove them anyway.
* No tree is built. A CDATA section is a comment up to the next `>`, as everywhere but inside of svg and math.
* White space is tab, line feed and space: form feed and carriage return are gone before.

Why not nh3 (ammonia, html5ever): it writes HTML, not text. Its escapes can be undone, but it builds a tree;
that loses text (what a template holds, the line feed after `<pre>`, what stands before a script inside of
math), turns CR LF into LF, and takes 14 ms for 16 KiB of `<div>`. The tests compare this module with it where
both must agree.

Every pass is linear. Once the expression has seen how markup begins it can't fail: what is never closed
reaches to the end of the text, as in HTML, so no closing token is searched for twice. The quantifiers are
possessive (`*+`): what they took is not given back, so nothing is tried in two ways.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from core.protocol import NAME_MAX

#: Passes over one text. Markup needs one, and one more where it had been cut in two by other markup
#: (`<<i>b>`). Whoever nests deeper is not writing text, and one pass for each level would make the work
#: quadratic.
_PASSES: Final = 3

#: The C0 controls but tab and line feed. DEL and the C1 controls stay in a text: D16 does not name them, and
#: to HTML they are text.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f]+")

#: What breaks a line. A name is one line, and a space keeps its words apart. Next line (U+0085), line
#: separator and paragraph separator do what line feed does.
_NAME_BREAKS: Final = re.compile(r"[\t\n\x85\u2028\u2029]")

#: What has no place in a name. Embeddings and overrides (U+202A to U+202E) and isolates (U+2066 to U+2069)
#: turn round what follows them, beyond the name too when left open. The marks (U+200E, U+200F, U+061C) go
#: with them: they can't be seen, yet a right-to-left mark before each of two digits shows 12 for 21, and one
#: user passes for another. The price is that punctuation at the edge of a name may show on its other side.
#: DEL and C1 can't be seen either. RFC 8264, sections 9.12 and 9.13, keeps all of these out of nicknames.
_NAME_INVISIBLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"
)

#: The only character whose normal form is an ASCII letter: normalised after the tags are gone, it would make
#: a tag of a `<` before it.
_KELVIN_SIGN: Final = "\u212a"

#: Normalising is quadratic in the length of a run of combining marks, 30 ms for 16 KiB. It makes one code
#: point of at most four (no canonical decomposition is longer), so what is longer than this is too long for a
#: name in any form, and can do without.
_NORMALISED_MAX: Final = 4 * NAME_MAX

#: The end of a tag's name; looked at, not taken.
_NAME_ENDS: Final = r"(?=[\t\n />])"

#: What may stand between a tag's name and its `>`: "before attribute name" and the states behind it. Only
#: behind a `=` does a quote begin a value; elsewhere it is a character of the attribute's name, so `<a ">` is
#: a whole tag.
_ATTRIBUTES: Final = r"""
    (?: [\t\n /]++
      | [^\t\n />] [^\t\n />=]*+                            # the name; a `=` at its beginning is part of it
        (?: [\t\n ]*+ = [\t\n ]*+
            (?: "[^"]*+(?:"|\Z) | '[^']*+(?:'|\Z) | [^\t\n >"'][^\t\n >]*+ )?+
        )?+
    )*+
"""

#: Behind `<!--`. Two dashes or more and then `>` or `!>` end it; `<!-->` and `<!--->` are whole comments.
_COMMENT: Final = r"""
    (?: -?>
      | (?: [^-]++ | -(?!-) | --++(?!!?>) )*+ (?: --++!?> | \Z )
    )
"""

#: Behind `<style>`, the end tag included: "RAWTEXT".
_STYLE_CONTENT: Final = rf"""
    (?: [^<]++ | <(?!/(?i:style){_NAME_ENDS}) )*+
    (?: </(?i:style) {_ATTRIBUTES} (?:>|\Z) | \Z )
"""

#: Behind `<script>`, the end tag included: "script data". Behind `<!--` it is "escaped", and there another
#: `<script>` makes it "double escaped", where `</script>` ends only that; `-->` ends both.
_SCRIPT_CONTENT: Final = rf"""
    (?: [^<]++
      | <(?! !-- | /(?i:script){_NAME_ENDS} )
      | <!(?=--)
        (?: [^<-]++ | -(?!-) | --++(?!>)                    # escaped
          | <(?! /?+(?i:script){_NAME_ENDS} )
          | <(?i:script){_NAME_ENDS}
            (?: [^<-]++ | -(?!-) | --++(?!>)                # double escaped
              | <(?! /(?i:script){_NAME_ENDS} )
            )*+
            (?: </(?i:script) )?+
        )*+
    )*+
    (?: </(?i:script) {_ATTRIBUTES} (?:>|\Z) | \Z )
"""

#: One piece of markup. ASCII keeps `(?i:script)` from matching letters that HTML does not fold, as U+017F
#: (long s).
_MARKUP: Final = re.compile(
    rf"""
    < (?=[A-Za-z/!?])                                       # only looked at, to be quick with floods of `<`
    (?: (?i:script) {_NAME_ENDS} {_ATTRIBUTES} (?: > {_SCRIPT_CONTENT} | \Z )
      | (?i:style) {_NAME_ENDS} {_ATTRIBUTES} (?: > {_STYLE_CONTENT} | \Z )
      | /?+ [A-Za-z] [^\t\n />]*+ {_ATTRIBUTES} (?:>|\Z)    # any other start tag, any end tag
      | !-- {_COMMENT}
      | (?: [!?] | /(?!\Z) ) [^>]*+ (?:>|\Z)                # doctype, bogus comment; `</` at the end is text
    )
    """,
    re.VERBOSE | re.ASCII,
)

#: Where `_MARKUP` would find something.
_MARKUP_BEGINS: Final = re.compile(r"<(?:[A-Za-z!?]|/(?!\Z))")

#: Every `<` that could begin markup. A whole run of them goes: of `<<a`, to take the second alone would put
#: the first before the letter.
_BRACKETS: Final = re.compile(r"(?<!<)<++(?=[A-Za-z/!?])")


def sanitize_text(text: str) -> str:
    """The content of a message without markup and C0 controls, otherwise as it was; it may be empty (D16).

    Sanitising the result again changes nothing.
    """
    # What is printable has no controls; to ask that takes a third of the time of a search for them.
    if not text.isprintable():
        text = _CONTROLS.sub("", text)
    return _without_markup(text) if "<" in text else text


def sanitize_name(text: str) -> str:
    """A display name on one line: no markup, controls or bidirectional formatting, trimmed, in NFC (D16).

    It may be empty. Line breaks and tabs become spaces. If more than four times `NAME_MAX` code points are
    left they are not normalised: that is too long in any form, and the caller is to refuse it. Sanitising the
    result again changes nothing.
    """
    # Before the markup, since "<", an invisible character and "b>" make a tag once that character is gone.
    text = _NAME_INVISIBLE.sub("", text)
    text = _NAME_BREAKS.sub(" ", text).replace(_KELVIN_SIGN, "K")
    text = _without_markup(text).strip()
    return unicodedata.normalize("NFC", text) if len(text) <= _NORMALISED_MAX else text


def _without_markup(text: str) -> str:
    """`text` without markup, nor what removing it has made into markup; controls must be gone before."""
    for _ in range(_PASSES):
        text = _MARKUP.sub("", text)
        if _MARKUP_BEGINS.search(text) is None:
            return text
    return _BRACKETS.sub("", text)
