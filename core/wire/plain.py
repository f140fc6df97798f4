"""Recognises what ordinary clients say all day, MSG and MSG_ACK, by its shape: nothing of it is decoded and encoded again.

What is recognised is what ``core.wire.codec.decode`` and ``core.wire.validation`` would have made of it. Whatever they would change,
refuse or look at more closely has another shape and is left to them: another order of fields, other fields, white space that no encoder
writes, escapes, markup, control characters.
"""

from __future__ import annotations

import re
from typing import Final

from core.wire import validation
from core.wire.protocol import CONTENT_MAX, Refusal

#: A JSON string, quotes included, whose text begins with something visible and that neither JSON nor D16 writes in another way, as far as
#: ASCII goes; for the rest see `is_kept`. A character has at most four bytes.
_CONTENT: Final = rb'"[!#-;=-\[\]-~\x80-\xff][ !#-;=-\[\]-~\x80-\xff]{0,%d}+"' % (4 * CONTENT_MAX)
#: What `validation.message_id` takes, but for the backslash, which JSON writes in another way.
_MESSAGE_ID: Final = rb"[!#-%(-;=?-\[\]-~]{1,64}+"
#: Wider than any user id: who has a chat with somebody knows that it is one.
_USER_ID: Final = rb"[!#-\[\]-~]{1,128}+"

_PLAIN: Final = re.compile(
    rb'\{"type": ?"MSG(?:'
    rb'", ?"data": ?\{"to": ?"(%b)", ?"content": ?(%b), ?"message_id": ?"(%b)"'
    rb'|_ACK", ?"data": ?\{"message_id": ?"(%b)"(?:, ?"from": ?"(%b)")?+'
    rb")\}\}" % (_USER_ID, _CONTENT, _MESSAGE_ID, _MESSAGE_ID, _USER_ID)
)

#: The match of a payload, or None. Groups 1 to 3: recipient, content and id of a MSG. Group 4: the id of a MSG_ACK; 5: from whom that is,
#: if the client says so.
recognise: Final = _PLAIN.fullmatch


def is_kept(content: bytes) -> bool:
    """Return whether `content`, as `recognise` found it, is valid and stored as it is."""
    if content.isascii():
        return len(content) <= CONTENT_MAX + 2
    try:
        text = content[1:-1].decode()
        return validation.content(text) == text
    except (UnicodeDecodeError, Refusal):
        return False
