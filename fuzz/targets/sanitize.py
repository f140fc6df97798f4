"""What users write: ``core.wire.sanitize``. Nothing that begins markup is left, no text is lost, and none takes long."""

from __future__ import annotations

import re
import time
import unicodedata
from random import Random
from typing import Final

from core.wire.sanitize import clean_text, is_visible, sanitize_name, sanitize_text
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.target import Target

_MARKUP: Final = re.compile(r"<[A-Za-z/!?]")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f]")
#: What no name has; joiners and selectors have their places.
_INVISIBLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\U000e0000-\U000e0fff]"
)
#: Seconds of this process for one input of 16 KiB. It takes a few milliseconds; here the code is instrumented and the machine busy.
_SLOW: Final = 0.25
_PIECES: Final = (
    *(
        "<",
        ">",
        "</",
        "<!--",
        "-->",
        "--!>",
        "<script",
        "<script>",
        "</script>",
        "<style>",
        "</style",
        "<!",
        "<?",
        "/>",
    ),
    *(
        '"',
        "'",
        "=",
        " ",
        "\t",
        "\n",
        "\0",
        "\x0b",
        "a",
        "B",
        "&lt;",
        "<3",
        "<a href=",
        "<i>",
        "</i>",
        "<!-->",
        "<!doctype",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u212a",
        "\u017f",
        "e\u0301",
        "\x85",
        "\u2028",
        "\x7f",
        "\U0001f600",
        "-",
        "--",
        "<<",
        "]]>",
        "<![CDATA[",
    ),
    *(
        "</b>",
        "<br>",
        "<Object>",
        "<script x='",
        " checked",
        " x=y",
        "='",
        "<?x ",
        "?>",
        "\r\n",
        "\u200b",
        "\u200c",
        "\u200d",
        "\ufe0f",
        "\u20e3",
        "\u3164",
        "\u2764",
        "\U000e0041",
    ),
)


def check(data: bytes) -> bool:
    """Whether there is anything to take away."""
    text = data.decode(errors="ignore")
    began = time.process_time()
    clean, name = sanitize_text(text), sanitize_name(text)
    took = time.process_time() - began
    assert took < _SLOW, f"{took:.3f} s"
    for result in (clean, name):
        assert not _MARKUP.search(result), result[:200]
    assert not _CONTROLS.search(clean)
    assert sanitize_text(clean) == clean
    unspaced = clean_text(text)
    assert clean.replace(" ", "") == unspaced.replace(" ", "")
    assert _is_left_of(unspaced.replace("\n", ""), text)
    if not _MARKUP.search(text) and not _CONTROLS.search(text):
        assert clean == text
    if ">" not in text:
        assert unspaced == re.sub("\r\n?", "\n", re.sub("[\0-\x08\x0b\x0c\x0e-\x1f]", "", text))
    assert not _INVISIBLE.search(name)
    assert sanitize_name(name) == name
    assert name == name.strip()
    if len(name) <= 50:
        assert unicodedata.is_normalized("NFC", name)
    assert is_visible(clean) or not any(character.isalnum() and character.isascii() for character in clean)
    return clean != text


def _is_left_of(result: str, text: str) -> bool:
    """Whether all of `result` stands in `text` in this order."""
    rest = iter(text)
    return all(character in rest for character in result)


def mutate(data: bytes, rng: Random) -> bytes:
    """Put pieces of markup together."""
    if rng.randrange(4) == 0:
        return mutate_bytes(data, rng)
    text = data.decode(errors="ignore")
    for _ in range(rng.choice((1, 2, 4, 12))):
        position = rng.randrange(len(text) + 1)
        piece = rng.choice(_PIECES) * (1 if rng.randrange(20) else rng.choice((2, 30, 3000)))
        text = text[:position] + piece + text[position + rng.choice((0, 0, 1, 9)) :]
    return text.encode()[:SIZE_MAX]


TARGET: Final = Target(check, mutate, "the sanitiser changed", ("core.wire.sanitize",))
